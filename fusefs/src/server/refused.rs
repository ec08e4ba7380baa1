//! Operations that never do anything: what would write is EROFS, what the kernel does better alone is ENOSYS.
//!
//! The mount is read-only, so the kernel refuses writing before it asks; the answers are for one that was remounted
//! writable. A trait cannot be implemented in two places, hence the macro.

/// Defines methods of `fuser::Filesystem` that answer with `self.$answer()`.
macro_rules! answered_with {
    ($answer:ident: $($name:ident($($argument:ty),*) -> $reply:ty;)*) => {
        $(answered_with!(@method $answer $name [_a _b _c _d _e _f _g _h _i _j _k _l _m] [$($argument,)*] [] $reply);)*
    };
    (@method $answer:ident $name:ident [$($rest:ident)*] [] [$($given:ident: $type:ty,)*] $reply:ty) => {
        #[allow(clippy::too_many_arguments)]
        fn $name(&self, _req: &fuser::Request, $($given: $type,)* reply: $reply) {
            reply.error(self.$answer());
        }
    };
    (
        @method $answer:ident $name:ident [$next:ident $($rest:ident)*] [$head:ty, $($tail:ty,)*]
        [$($given:ident: $type:ty,)*] $reply:ty
    ) => {
        answered_with!(@method $answer $name [$($rest)*] [$($tail,)*] [$($given: $type,)* $next: $head,] $reply);
    };
}
pub(super) use answered_with;
