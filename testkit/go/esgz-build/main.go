// Command esgz-build turns a tar into an eStargz blob with the reference library.
//
// It prints one JSON object: the blob's TOC digest and the digest of its uncompressed tar.
package main

import (
	"encoding/json"
	"flag"
	"io"
	"log"
	"os"
	"strings"

	"github.com/containerd/stargz-snapshotter/estargz"
)

func main() {
	level := flag.Int("level", 6, "gzip level")
	chunk := flag.Int("chunk-size", 0, "longest chunk in bytes, 0 for the library's default")
	minChunk := flag.Int("min-chunk-size", 0, "least compressed bytes of a gzip member; packs small files together")
	prioritized := flag.String("prioritized", "", "comma-separated paths that come first")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: esgz-build [flags] TAR BLOB")
	}
	tar, err := os.Open(flag.Arg(0))
	check(err)
	info, err := tar.Stat()
	check(err)
	options := []estargz.Option{
		estargz.WithCompressionLevel(*level),
		estargz.WithChunkSize(*chunk),
		estargz.WithMinChunkSize(*minChunk),
	}
	if *prioritized != "" {
		options = append(options, estargz.WithPrioritizedFiles(strings.Split(*prioritized, ",")))
	}
	blob, err := estargz.Build(io.NewSectionReader(tar, 0, info.Size()), options...)
	check(err)
	out, err := os.Create(flag.Arg(1))
	check(err)
	_, err = io.Copy(out, blob)
	check(err)
	check(blob.Close())
	check(out.Close())
	check(json.NewEncoder(os.Stdout).Encode(map[string]string{
		"tocDigest": blob.TOCDigest().String(),
		"diffID":    blob.DiffID().String(),
	}))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
