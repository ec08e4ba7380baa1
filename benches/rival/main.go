// Command stargz-rival serves stargz-snapshotter, the published library, on a socket: the rival in benchmarks.
//
// It is what containerd-stargz-grpc is without its optional parts: configuration file, keychain of the Docker
// configuration and the snapshots service.
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/containerd/stargz-snapshotter/service/keychain/dockerconfig"
	"github.com/pelletier/go-toml"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

func main() {
	address := flag.String("address", "", "socket to serve on")
	root := flag.String("root", "", "directory for everything that is kept")
	configuration := flag.String("config", "", "configuration file, as containerd-stargz-grpc takes it")
	flag.Parse()

	var config service.Config
	if *configuration != "" {
		tree, err := toml.LoadFile(*configuration)
		check(err)
		check(tree.Unmarshal(&config))
	}
	ctx := context.Background()
	snapshotter, err := service.NewStargzSnapshotterService(ctx, *root, &config,
		service.WithCredsFuncs(dockerconfig.NewDockerconfigKeychain(ctx)))
	check(err)
	check(os.MkdirAll(filepath.Dir(*address), 0o700))
	listener, err := net.Listen("unix", *address)
	check(err)
	server := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	go func() { check(server.Serve(listener)) }()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM)
	<-stop
	check(snapshotter.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
