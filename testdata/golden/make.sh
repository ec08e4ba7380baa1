#!/bin/sh
# Makes the blobs in this directory again, with GNU tar, Go and the library that testkit/go/go.mod pins. Needs root for
# the device. `sh testdata/golden/make.sh`
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d)
tools=$(mktemp -d)
trap 'rm -rf "$tree" "$tools"' EXIT

mkdir -p "$tree/bin" "$tree/etc/opaque" "$tree/dev"
printf 'hello\n' >"$tree/etc/greeting"
printf 'run\n' >"$tree/bin/setuid"
seq 1 2000 >"$tree/etc/numbers"
: >"$tree/etc/empty"
: >"$tree/etc/.wh.gone"
: >"$tree/etc/opaque/.wh..wh..opq"
ln "$tree/etc/greeting" "$tree/etc/again"
ln -s ../etc/greeting "$tree/bin/link"
mkfifo "$tree/dev/pipe"
mknod "$tree/dev/char" c 5 1
setfattr -n user.text -v text "$tree/etc/numbers"
chmod -R u=rwX,go=rX "$tree"
chmod 4755 "$tree/bin/setuid"
tar -C "$tree" --format=posix --pax-option=delete=atime,delete=ctime --sort=name --numeric-owner --owner=1000 --group=100 \
    --mtime=@1234567890 --xattrs -cf "$here/small.tar" .

cd "$here/../../testkit/go"
go build -o "$tools" ./esgz-build ./esgz-verify
cd "$here"
make() { # NAME FLAG...
    name=$1
    shift
    "$tools/esgz-build" "$@" small.tar "$name.esgz" >"$name.json"
    toc=$(sed 's/.*"tocDigest":"\([^"]*\)".*/\1/' "$name.json")
    "$tools/esgz-verify" "$name.esgz" "$toc" >"$name.list"
}
make default
make packed -min-chunk-size 50000
make chunked -chunk-size 4096
make prioritized -prioritized etc/greeting,bin/setuid

# The footer of stargz has no sub-field around the offset: 47 bytes instead of 51. The library no longer writes it.
offset=$(tail -c 35 default.esgz | head -c 16)
{
    head -c -51 default.esgz
    printf '\037\213\010\004\0\0\0\0\0\377\026\0%sSTARGZ\001\0\0\377\377\0\0\0\0\0\0\0\0' "$offset"
} >legacy.esgz
cp default.json legacy.json
"$tools/esgz-verify" legacy.esgz "$(sed 's/.*"tocDigest":"\([^"]*\)".*/\1/' legacy.json)" >legacy.list
