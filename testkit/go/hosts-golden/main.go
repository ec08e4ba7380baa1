// Command hosts-golden has containerd read many hosts.toml and prints what it makes of them.
//
// Each line is one JSON object: the registry, the name of its directory, the file, and the hosts in their order, or none
// if containerd refuses. Half of the files are written by hand for a rule each, the rest by a generator with a fixed seed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	containerdlog "github.com/containerd/log"
)

const generated = 150

type file struct {
	Registry  string `json:"registry"`
	Directory string `json:"directory"`
	Text      string `json:"text"`
	Hosts     []host `json:"hosts"`
}

type host struct {
	Scheme       string      `json:"scheme"`
	Host         string      `json:"host"`
	Path         string      `json:"path"`
	Capabilities int         `json:"capabilities"`
	Header       http.Header `json:"header"`
	SkipVerify   bool        `json:"skipVerify"`
	// HTTPS is tried first, and HTTP if that is not understood.
	Fallback bool `json:"fallback"`
}

func main() {
	// Files that containerd refuses are part of the matter.
	check(containerdlog.SetLevel("panic"))
	random := rand.New(rand.NewPCG(1, 2))
	files := written()
	for n := range generated {
		files = append(files, invented(random, n))
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	for _, file := range files {
		check(file.read())
		check(out.Encode(file))
	}
}

func (f *file) read() error {
	root, err := os.MkdirTemp("", "hosts-golden")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	directory := filepath.Join(root, f.Directory)
	if err := os.Mkdir(directory, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "hosts.toml"), []byte(f.Text), 0o644); err != nil {
		return err
	}
	options := config.HostOptions{HostDir: config.HostDirFromRoot(root)}
	hosts, err := config.ConfigureHosts(context.Background(), options)(f.Registry)
	if err != nil {
		return nil
	}
	for _, h := range hosts {
		read := host{Scheme: h.Scheme, Host: h.Host, Path: h.Path, Capabilities: int(h.Capabilities), Header: h.Header}
		if transport, ok := h.Client.Transport.(*http.Transport); ok {
			read.SkipVerify = transport.TLSClientConfig.InsecureSkipVerify
		} else {
			read.Fallback = true
		}
		f.Hosts = append(f.Hosts, read)
	}
	return nil
}

// Each shows a rule, most of them one that is easily got wrong.
func written() []file {
	registries := []string{"docker.io", "example.com", "example.com:5000", "localhost", "localhost:80", "localhost:443",
		"localhost:5000", "127.0.0.1:5000", "[::1]:5000", "10.0.0.1:5000"}
	var files []file
	for _, registry := range registries {
		for _, text := range []string{"", "capabilities = [\"pull\"]", "skip_verify = false", "[host.\"http://m.example\"]"} {
			files = append(files, file{Registry: registry, Directory: registry, Text: text})
		}
	}
	for _, text := range []string{
		"server = \"https://origin.example\"\n[host.\"https://z.example\"]\n[host.\"http://a.example:5000\".header]\nx = \"1\"\n" +
			"[host.\"m.example/us\"]\ncapabilities = [\"Pull\", \"RESOLVE\"]\n[host.\"http://a.example:5000\"]\ncapabilities = [\"pull\"]",
		"SERVER = \"https://origin.example\"\nunknown = { anything = [1, 2.5, 1979-05-27] }\n[other]\n" +
			"[host.\"https://headed.example\"]\nCapabilities = [\"pull\"]\nfuture = true",
		"host.\"https://dotted.example\".capabilities = [\"pull\"]",
		"host = { \"https://inline.example\" = { capabilities = [\"pull\"] } }",
		"[host]\n\"https://within.example\".capabilities = [\"pull\"]",
		"  [ host . 'https://spaced.example' ]  # a comment",
		"[host.'http://10.0.0.7:30020']\ncapabilities = ['pull', 'resolve']\ndial_timeout = '200ms'",
		"server = \"https://index.docker.io\"\n[host.\"http://127.0.0.1:4001\"]\ncapabilities = [\"pull\", \"resolve\"]\n" +
			"skip_verify = true\n[host.\"http://127.0.0.1:4001\".header]\nX-Dragonfly-Registry = \"https://index.docker.io\"",
		"server = \"http://a.example:5000\"\nskip_verify = true",
		"server = \"http://a.example:80\"\nskip_verify = true",
		"server = \"http://a.example:5000\"\nca = []",
		"server = \"http://a.example:5000\"\nclient = []",
		"capabilities = []", "capabilities = \"pull\"", "capabilities = [\"fly\"]", "ca = 1", "ca = [1]", "client = 1", "client = {}",
		"client = [[\"a\"]]", "client = [[\"a\", \"b\", \"c\"]]", "skip_verify = 1", "skip_verify = \"yes\"", "override_path = \"no\"",
		"header = []", "header = { x = 1 }", "header = { x = [\"1\", 2] }", "header = { x = [] }", "dial_timeout = 3",
		"dial_timeout = \"3\"", "dial_timeout = \"\"", "dial_timeout = \"-1s\"", "server = 3", "server = \"/v2\"",
		"host = 1", "[[host.\"https://a.example\"]]", "[host", "a = 1\na = 2",
		"[host.\"https://a b\"]",
	} {
		files = append(files, file{Registry: "example.com", Directory: "_default", Text: text})
	}
	return files
}

func invented(random *rand.Rand, n int) file {
	one := func(of ...string) string { return of[random.IntN(len(of))] }
	often := func(percent int) bool { return random.IntN(100) < percent }
	address := func() string {
		return one("https://", "http://", "", "https://", "HTTP://") +
			one("m.example", "n.example:5000", "127.0.0.1:4001", "[::1]:5000", "10.0.0.1", "registry-1.docker.io", "docker.io",
				"x.example:443", "y.example:80", "localhost:5000", "u:p@w.example") +
			one("", "", "", "/", "/v2", "/v2/", "/a/b", "/a//b/../c/", "/foov2", "?x=y", "/v2/#f", "/..")
	}
	registry := one(fmt.Sprintf("r%d.example", n), fmt.Sprintf("r%d.example:5000", n), "127.0.0.1:5000", "127.0.0.1:443", "docker.io")
	result := file{Registry: registry, Directory: registry}
	if colon := strings.LastIndex(registry, ":"); colon > 0 && often(50) {
		result.Directory = registry[:colon] + "_" + registry[colon+1:] + "_"
	}
	var lines []string
	settings := func(header bool) {
		if often(50) {
			names := []string{"pull", "resolve", "push", "referrers", "PULL", "Push"}
			random.Shuffle(len(names), func(a, b int) { names[a], names[b] = names[b], names[a] })
			list, _ := json.Marshal(names[:random.IntN(4)])
			lines = append(lines, "capabilities = "+string(list))
		}
		for _, setting := range []struct {
			percent int
			line    string
		}{
			{30, "skip_verify = " + one("true", "false")},
			{20, "override_path = " + one("true", "false")},
			{20, "dial_timeout = " + one(`"3s"`, `"1m3.5s"`, `"0"`, `"-1s"`, `"300ms"`, `""`)},
			{10, "ca = []"},
			{10, "unknown = [1, {a=2}]"},
			{2, "server = 1\nclient = 1"},
		} {
			if often(setting.percent) {
				lines = append(lines, setting.line)
			}
		}
		if header && often(20) {
			lines = append(lines, "header = "+one(`{ x = "1" }`, `{ "X-A" = ["1", "2"], b = "" }`))
		}
	}
	if often(50) {
		lines = append(lines, fmt.Sprintf("server = %q", one(address(), "https://"+registry, "", "/v2")))
	}
	settings(true)
	used := map[string]bool{}
	for range random.IntN(5) {
		name := address()
		if used[name] {
			continue
		}
		used[name] = true
		switch {
		case often(20):
			lines = append(lines, fmt.Sprintf("[host.%q.header]\nq = \"1\"\n[host.%q]", name, name))
			settings(false)
		case often(10):
			lines = append(lines, fmt.Sprintf("[ host . '%s' ]", name))
			settings(true)
		default:
			lines = append(lines, fmt.Sprintf("[host.%q]", name))
			settings(true)
		}
	}
	result.Text = strings.Join(lines, "\n")
	return result
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
