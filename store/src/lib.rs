//! What is on disk and what is on its way: index, content and chunk-map files, fetch scheduler.
