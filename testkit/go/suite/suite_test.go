// Package suite runs containerd's own snapshotter test suite against a daemon.
package suite

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/proxy"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// The daemon under test: a program that takes --address and --root, and --config if SUITE_CONFIG is set.
const (
	daemonVariable = "STARLINGD"
	configVariable = "SUITE_CONFIG"
)

// TestSuite starts one daemon for each sub-test, since sub-tests use the same names at the same time.
//
// The suite is told the name overlayfs: with another name it expects that a directory of a lower layer can be renamed,
// which overlayfs does only with redirect_dir=on.
func TestSuite(t *testing.T) {
	daemon := os.Getenv(daemonVariable)
	if daemon == "" {
		t.Skipf("%s names no daemon", daemonVariable)
	}
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		return start(daemon, root)
	})
}

func start(daemon, root string) (_ snapshots.Snapshotter, stop func() error, err error) {
	// Socket paths are limited to 107 bytes, and the root's is the test's to choose.
	run, err := os.MkdirTemp("", "suite-run-")
	if err != nil {
		return nil, nil, err
	}
	address := filepath.Join(run, "s.sock")
	arguments := []string{"--address", address, "--root", filepath.Join(root, "data")}
	if config := os.Getenv(configVariable); config != "" {
		arguments = append(arguments, "--config", config)
	}
	log, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		return nil, nil, err
	}
	command := exec.Command(daemon, arguments...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return nil, nil, err
	}
	exited := make(chan error, 1)
	go func() { exited <- command.Wait() }()

	if err := waitFor(address, exited); err != nil {
		output, _ := os.ReadFile(log.Name())
		return nil, nil, fmt.Errorf("%w; it said: %s", err, output)
	}
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	stop = func() error {
		conn.Close()
		if err := command.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case err := <-exited:
			os.RemoveAll(run)
			return err
		case <-time.After(20 * time.Second):
			command.Process.Kill()
			return fmt.Errorf("the daemon did not stop within 20 s of SIGTERM, its log is %s", log.Name())
		}
	}
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), "overlayfs"), stop, nil
}

func waitFor(address string, exited <-chan error) error {
	deadline := time.After(30 * time.Second)
	for {
		if conn, err := net.Dial("unix", address); err == nil {
			return conn.Close()
		}
		select {
		case err := <-exited:
			return fmt.Errorf("the daemon ended before it listened: %v", err)
		case <-deadline:
			return fmt.Errorf("the daemon does not listen on %s after 30 s", address)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
