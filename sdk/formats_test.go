package sdk_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
	"github.com/berthoci/berth/sdk"
)

// Images of every format, and registries that hold them or lie about them.

const dockerConfig = "application/vnd.docker.container.image.v1+json"

// configOf is the config of an image for an architecture.
func configOf(architecture string) string {
	return fmt.Sprintf(`{"created":"2015-01-02T03:04:05Z","author":"Ada","architecture":%q,"os":"linux",`+
		`"docker_version":"1.6.0","config":{"Env":["A=b"],"Labels":{"k":"v"},"Entrypoint":["/bin/sh","-c"],"User":"ada"},`+
		`"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created_by":"step 1"},{"created_by":"empty","empty_layer":true}]}`, architecture)
}

// shelf is a repository, and where the SDK finds it.
type shelf struct {
	images *sdk.Images
	repo   berth.Repository
	name   string // the repository's name as a reference has it, with a host or without
}

// shelves are a repository in the layout, and one in a remote registry.
func shelves(tb testing.TB) map[string]shelf {
	tb.Helper()
	registry := open(tb, sdk.Options{})
	local, err := registry.Repository("app/hello")
	must(tb, err)
	return map[string]shelf{
		"layout": {registry.Images, local, "app/hello"},
		"remote": remoteShelf(tb, serveRemote(tb, nil)),
	}
}

func remoteShelf(tb testing.TB, host string) shelf {
	tb.Helper()
	registry, err := sdk.NewRemotes(nil).Registry(host)
	must(tb, err)
	repo, err := registry.Repository("app/hello")
	must(tb, err)
	return shelf{sdk.NewImages(&sdk.Options{Patience: -1}), repo, host + "/app/hello"}
}

// put pushes a manifest.
func (s shelf) put(tb testing.TB, mediaType string, raw []byte, tags ...string) v1.Descriptor {
	tb.Helper()
	desc, err := s.repo.PushManifest(tb.Context(), raw, &berth.PushOptions{MediaType: mediaType, Tags: tags})
	must(tb, err)
	return desc
}

// blob uploads one.
func (s shelf) blob(tb testing.TB, mediaType, content string) v1.Descriptor {
	tb.Helper()
	upload, err := s.repo.NewUpload(tb.Context(), nil)
	must(tb, err)
	_, err = upload.Write([]byte(content))
	must(tb, err)
	desc, err := upload.Commit(tb.Context(), digest.FromString(content))
	must(tb, err)
	desc.MediaType = mediaType
	return desc
}

// image pushes an image of one layer, OCI's or Docker's.
func (s shelf) image(tb testing.TB, mediaType, architecture string, tags ...string) v1.Descriptor {
	tb.Helper()
	types := []string{v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip}
	if mediaType == manifest.MediaTypeDockerManifest {
		types = []string{dockerConfig, "application/vnd.docker.image.rootfs.diff.tar.gzip"}
	}
	config := s.blob(tb, types[0], configOf(architecture))
	return s.put(tb, mediaType, imageOf(mediaType, config, s.blob(tb, types[1], "layer")), tags...)
}

func imageOf(mediaType string, config v1.Descriptor, layers ...v1.Descriptor) []byte {
	m := v1.Manifest{MediaType: mediaType, Config: config, Layers: layers}
	m.SchemaVersion = 2
	return encoded(m)
}

// index pushes an index or list of images for two architectures.
func (s shelf) index(tb testing.TB, mediaType, imageType string, tags ...string) (list, amd64, arm64 v1.Descriptor) {
	tb.Helper()
	amd64, arm64 = s.image(tb, imageType, "amd64"), s.image(tb, imageType, "arm64")
	amd64.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
	arm64.Platform = &v1.Platform{OS: "linux", Architecture: "arm64"}
	return s.put(tb, mediaType, indexOf(mediaType, amd64, arm64), tags...), amd64, arm64
}

func indexOf(mediaType string, children ...v1.Descriptor) []byte {
	m := v1.Index{MediaType: mediaType, Manifests: children}
	m.SchemaVersion = 2
	return encoded(m)
}

func encoded(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

// v1ID is the n-th id of schema 1.
func v1ID(n int) string { return digest.FromString(fmt.Sprint("id ", n)).Encoded() }

// v1JSON describes the n-th layer of schema 1, which is on the one before; more begins with a comma.
func v1JSON(n int, more string) string {
	if n > 0 {
		more = fmt.Sprintf(`,"parent":%q%s`, v1ID(n-1), more)
	}
	return fmt.Sprintf(`{"id":%q%s}`, v1ID(n), more)
}

// topJSON is v1JSON for the topmost layer, which says how to run the image.
func topJSON(n int) string {
	return v1JSON(n, `,"created":"2015-01-02T03:04:05Z","author":"Ada","architecture":"amd64","os":"linux","docker_version":"1.6.0","throwaway":true,`+
		`"config":{"Env":["A=b"],"Labels":{"k":"v"},"Entrypoint":["/bin/sh","-c"],"User":"ada"}`)
}

// schema1 pushes an image of two layers, the upper of which changes no file.
func (s shelf) schema1(tb testing.TB, signed bool, tag string) *schema1.Manifest {
	tb.Helper()
	base := s.layer1(tb, "layer", v1JSON(0, `,"container_config":{"Cmd":["step","1"]}`))
	top := s.layer1(tb, string(schema1.EmptyLayer()), topJSON(1))
	to := schema1.Target{Ref: berth.Reference{Repository: "app/hello", Tag: tag}}
	m, err := schema1.Build(to, "amd64", []schema1.Layer{base, top})
	must(tb, err)
	if signed {
		m, err = m.Sign(signer(), time.Unix(1_420_000_000, 0))
		must(tb, err)
	}
	s.put(tb, m.MediaType(), m.Raw(), tag)
	return m
}

func (s shelf) layer1(tb testing.TB, content, description string) schema1.Layer {
	tb.Helper()
	layer, err := schema1.NewLayer(s.blob(tb, "", content).Digest, []byte(description))
	must(tb, err)
	return layer
}

// signer is made once: it takes longer than most tests.
var signer = gosync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// page is what a registry that is made up answers at a path.
type page struct {
	mediaType, body string
	status          int    // 0: 200
	digest          string // what it tells; empty: nothing
}

// madeUp is a registry that has these pages and nothing else.
func madeUp(tb testing.TB, pages map[string]page) (host string) {
	tb.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, found := pages[strings.TrimPrefix(r.URL.Path, "/v2/app/hello/")]
		switch {
		case !found:
			p.status = http.StatusNotFound
		case p.status == 0:
			p.status = http.StatusOK
		}
		w.Header().Set("Content-Type", p.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(p.body)))
		if p.digest != "" {
			w.Header().Set("Docker-Content-Digest", p.digest)
		}
		w.WriteHeader(p.status)
		w.Write([]byte(p.body))
	}))
	tb.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// pageOf is a manifest as an honest registry answers.
func pageOf(mediaType string, raw []byte) page {
	return page{mediaType: mediaType, body: string(raw), digest: string(digest.FromBytes(raw))}
}
