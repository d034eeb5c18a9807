package sdk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/sdk/source"
	"github.com/berthoci/berth/server"
)

// open serves a layout from within the test.
func open(tb testing.TB, opts sdk.Options) *sdk.Registry {
	tb.Helper()
	if opts.Layout == "" {
		opts.Layout = filepath.Join(tb.TempDir(), "layout")
	}
	opts.Launcher = embedded.InProcess()
	registry, err := sdk.Open(tb.Context(), &opts)
	must(tb, err)
	tb.Cleanup(func() { must(tb, registry.Close()) })
	return registry
}

// built is an image in a layout directory, as a build tool leaves it.
type built struct {
	dir         string
	root, layer v1.Descriptor
}

func (b built) source() source.Source { return source.Layout(b.dir, "") }

// file is where one of its blobs lies.
func (b built) file(desc v1.Descriptor) string {
	return filepath.Join(b.dir, "blobs", "sha256", desc.Digest.Encoded())
}

// build makes an image of one layer. Images of the same layer are the same.
func build(tb testing.TB, layer string) built {
	tb.Helper()
	b := built{dir: filepath.Join(tb.TempDir(), "built")}
	to, err := source.ToLayout(b.dir, "")
	must(tb, err)
	put := func(mediaType string, content []byte) v1.Descriptor {
		desc := manifest.Descriptor(mediaType, content)
		must(tb, to.Put(tb.Context(), desc, strings.NewReader(string(content))))
		return desc
	}
	b.layer = put(v1.MediaTypeImageLayer, []byte(layer))
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: put(v1.MediaTypeImageConfig, []byte(`{"os":"linux"}`)), Layers: []v1.Descriptor{b.layer}}
	m.SchemaVersion = 2
	raw, err := json.Marshal(m)
	must(tb, err)
	b.root = put(m.MediaType, raw)
	must(tb, errors.Join(to.Commit(tb.Context(), b.root), to.Close()))
	return b
}

// push builds an image and pushes it.
func push(tb testing.TB, registry *sdk.Registry, layer, ref string) v1.Descriptor {
	tb.Helper()
	pushed, err := registry.Push(tb.Context(), build(tb, layer).source(), ref, nil)
	must(tb, err)
	return pushed.Descriptor
}

// tags are all tags of a repository; none where it holds nothing.
func tags(tb testing.TB, registry *sdk.Registry, repository string) (all []string) {
	tb.Helper()
	for tag, err := range registry.Tags(tb.Context(), repository) {
		if errors.Is(err, berth.ErrNameUnknown) {
			return nil
		}
		must(tb, err)
		all = append(all, tag)
	}
	return all
}

// listed are the tags that a layout's index.json shows, to any program.
func listed(tb testing.TB, layout string) map[string]digest.Digest {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(layout, v1.ImageIndexFile))
	must(tb, err)
	var index v1.Index
	must(tb, json.Unmarshal(data, &index))
	found := map[string]digest.Digest{}
	for _, desc := range index.Manifests {
		if name := desc.Annotations[v1.AnnotationRefName]; name != "" {
			found[name] = desc.Digest
		}
	}
	return found
}

// serveRemote starts a registry on the network, as far as a test has one.
func serveRemote(tb testing.TB, opts *server.Options) (host string) {
	tb.Helper()
	layout, err := ocilayout.Open(tb.Context(), tb.TempDir(), nil)
	must(tb, err)
	srv := httptest.NewServer(server.New(layout, opts))
	tb.Cleanup(func() {
		srv.Close()
		must(tb, layout.Close())
	})
	return srv.Listener.Addr().String()
}

const (
	remoteUser     = "ada"
	remotePassword = "canary.lovelace's own"
)

// withPassword are the options of a server that asks for one.
func withPassword(tb testing.TB) *server.Options {
	tb.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(remotePassword), bcrypt.MinCost)
	must(tb, err)
	users, err := server.Htpasswd(strings.NewReader(fmt.Sprintf("%s:%s\n", remoteUser, hash)))
	must(tb, err)
	return &server.Options{Authorizer: users}
}

// wantErr also tells the error, so that it is looked through for secrets.
func wantErr(tb testing.TB, what string, err, want error) {
	tb.Helper()
	tb.Logf("%s: %v", what, err)
	if !errors.Is(err, want) {
		tb.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func wantEqual(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func describe(content string) v1.Descriptor {
	return manifest.Descriptor("application/octet-stream", []byte(content))
}

// manifestOf reads the manifest of an image.
func manifestOf(tb testing.TB, from source.Source, root v1.Descriptor) (m v1.Manifest) {
	tb.Helper()
	content, err := from.Fetch(tb.Context(), root)
	must(tb, err)
	defer content.Close()
	must(tb, json.NewDecoder(content).Decode(&m))
	return m
}
