package suite

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The socket of a daemon that can serve the targets sha256:base and sha256:top lazily, and no other.
const remoteVariable = "REMOTE_SOCKET"

const remoteLabel = "containerd.io/snapshot/remote"

// TestSuiteThroughMetadata runs the suite as containerd's clients see a snapshotter: behind its metadata store, which
// gives snapshots names of its own.
func TestSuiteThroughMetadata(t *testing.T) {
	daemon := os.Getenv(daemonVariable)
	if daemon == "" {
		t.Skipf("%s names no daemon", daemonVariable)
	}
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		backend, stop, err := start(daemon, root)
		if err != nil {
			return nil, nil, err
		}
		db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, nil)
		if err != nil {
			return nil, nil, err
		}
		store := metadata.NewDB(db, nil, map[string]snapshots.Snapshotter{"overlayfs": backend})
		return store.Snapshotter("overlayfs"), func() error {
			db.Close()
			return stop()
		}, nil
	})
}

// TestRemoteProtocol pulls as containerd's unpacker does in two namespaces, and lets containerd collect the garbage.
func TestRemoteProtocol(t *testing.T) {
	address := os.Getenv(remoteVariable)
	if address == "" {
		t.Skipf("%s names no socket", remoteVariable)
	}
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	backend := proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "starling")
	store := openStore(t, backend)
	sn := store.Snapshotter("starling")
	first := namespaces.WithNamespace(t.Context(), "first")
	second := namespaces.WithNamespace(t.Context(), "second")

	// Both layers are lazy in one namespace, also when they are asked for again.
	for range 2 {
		pull(t, first, sn, "sha256:base", "")
		pull(t, first, sn, "sha256:top", "sha256:base")
	}
	info, err := sn.Stat(first, "sha256:top")
	if err != nil {
		t.Fatal(err)
	}
	if info.Kind != snapshots.KindCommitted || info.Parent != "sha256:base" || info.Labels[remoteLabel] == "" {
		t.Fatalf("sha256:top is %+v", info)
	}

	// In the other the lower one has to be unpacked, so the same chain id stands on another parent.
	mounts, err := sn.Prepare(second, "extract plain", "", ref("sha256:plain"))
	if err != nil {
		t.Fatal(err)
	}
	if len(mounts) != 1 || mounts[0].Type != "bind" || mounts[0].ReadOnly() {
		t.Fatalf("a fall-back has the mounts %+v", mounts)
	}
	if err := sn.Commit(second, "sha256:plain", "extract plain", ref("sha256:plain")); err != nil {
		t.Fatal(err)
	}
	pull(t, second, sn, "sha256:top", "sha256:plain")
	if info, err := sn.Stat(second, "sha256:top"); err != nil || info.Parent != "sha256:plain" {
		t.Fatalf("sha256:top is %+v, %v", info, err)
	}

	// A container keeps its image; nothing keeps the other one.
	root := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "now"})
	if _, err := sn.Prepare(first, "container", "sha256:top", root); err != nil {
		t.Fatal(err)
	}
	expect(t, backend, 5)
	collect(t, store)
	expect(t, backend, 3)
	if _, err := sn.Mounts(first, "container"); err != nil {
		t.Fatal(err)
	}
	if err := sn.Remove(first, "container"); err != nil {
		t.Fatal(err)
	}
	collect(t, store)
	expect(t, backend, 0)
}

func openStore(t *testing.T, backend snapshots.Snapshotter) *metadata.DB {
	directory := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(directory, "content"))
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(directory, "metadata.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	store := metadata.NewDB(db, blobs, map[string]snapshots.Snapshotter{"starling": backend})
	if err := store.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return store
}

func ref(target string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: target})
}

// pull expects that there is nothing to download.
func pull(t *testing.T, ctx context.Context, sn snapshots.Snapshotter, target, parent string) {
	t.Helper()
	if _, err := sn.Prepare(ctx, "extract "+target, parent, ref(target)); !errdefs.IsAlreadyExists(err) {
		t.Fatalf("Prepare of %s on %q: %v", target, parent, err)
	}
	if _, err := sn.Stat(ctx, target); err != nil {
		t.Fatal(err)
	}
}

func collect(t *testing.T, store *metadata.DB) {
	t.Helper()
	if _, err := store.GarbageCollect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, backend snapshots.Snapshotter, count int) {
	t.Helper()
	var names []string
	err := backend.Walk(t.Context(), func(_ context.Context, info snapshots.Info) error {
		names = append(names, info.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != count {
		t.Fatalf("%d snapshots instead of %d: %q", len(names), count, names)
	}
}
