package server_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
	"github.com/berthoci/berth/server"
)

// onlySchema1 is what a Docker client of 2015 accepts.
const onlySchema1 = schema1.MediaTypeSigned + ", " + schema1.MediaType

// oldImage makes a signed manifest of two layers, which are in the repository.
func (f *fixture) oldImage(repository, name, tag string) *schema1.Manifest {
	f.Helper()
	base, top := f.blob(repository, "base"), f.blob(repository, "top")
	return f.sign(name, tag, layer{base, v1ID(1), ""}, layer{top, v1ID(2), v1ID(1)})
}

type layer struct {
	blob       digest.Digest
	id, parent string
}

func v1ID(n int) string { return fmt.Sprintf("%064x", n) }

func (f *fixture) sign(name, tag string, layers ...layer) *schema1.Manifest {
	f.Helper()
	var made []schema1.Layer
	for _, l := range layers {
		v1JSON := fmt.Sprintf(`{"id":%q,"parent":%q}`, l.id, l.parent)
		if l.parent == "" {
			v1JSON = fmt.Sprintf(`{"id":%q}`, l.id)
		}
		next, err := schema1.NewLayer(l.blob, []byte(v1JSON))
		f.check(err)
		made = append(made, next)
	}
	m, err := schema1.Build(schema1.Target{Ref: berth.Reference{Repository: name, Tag: tag}}, "amd64", made)
	f.check(err)
	return f.signed(m)
}

func (f *fixture) signed(m *schema1.Manifest) *schema1.Manifest {
	f.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	f.check(err)
	m, err = m.Sign(key, time.Unix(1_428_000_000, 0))
	f.check(err)
	return m
}

func (f *fixture) check(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// put pushes a manifest and returns the answer.
func (f *fixture) put(repository, ref, mediaType, raw string) *http.Response {
	f.Helper()
	return f.do("PUT", "/v2/"+repository+"/manifests/"+ref, raw, "Content-Type", mediaType)
}

// image pushes an image of today and returns its digest. Its history has one entry that changed nothing.
func (f *fixture) image(repository, tag, mediaType string) digest.Digest {
	f.Helper()
	blob := f.blob(repository, "layer of "+tag)
	config := `{"architecture":"amd64","os":"linux","created":"2020-01-02T03:04:05Z","rootfs":{"type":"layers","diff_ids":["` + string(blob) + `"]},` +
		`"history":[{"created":"2020-01-01T00:00:00Z","created_by":"ADD x"},{"created":"2020-01-02T03:04:05Z","created_by":"ENV a=b","empty_layer":true}]}`
	configType, layerType := v1.MediaTypeImageConfig, v1.MediaTypeImageLayer
	if mediaType == manifest.MediaTypeDockerManifest {
		configType, layerType = "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
		mediaType, configType, f.blob(repository, config), len(config), layerType, blob, len("layer of "+tag))
	f.want(f.put(repository, tag, mediaType, raw), http.StatusCreated)
	return digest.FromString(raw)
}

func TestSchema1PutRules(t *testing.T) {
	f := serve(t, nil)
	m := f.oldImage("app/hello", "app/hello", "v1")
	raw, d := string(m.Raw()), string(m.Digest())
	whole := fmt.Sprintf(`{\"id\":\"%s\"}`, v1ID(1))
	orphan, err := schema1.Parse("", []byte(strings.Replace(string(m.Payload()), whole, strings.TrimSuffix(whole, "}")+fmt.Sprintf(`,\"parent\":\"%s\"}`, v1ID(9)), 1)))
	f.check(err)
	lonely := f.signed(orphan)
	blobless := f.sign("app/hello", "v1", layer{digest.FromString("absent"), v1ID(1), ""})
	noLayers := `{"schemaVersion":1,"name":"app/hello","tag":"v1","architecture":"amd64","fsLayers":[],"history":[]}`
	for _, tt := range []struct {
		name, repository, ref, mediaType, raw string
		status                                int
		codes                                 string
	}{
		{"the tag must be the manifest's", "app/hello", "v2", schema1.MediaTypeSigned, raw, 400, "TAG_INVALID"},
		{"the name must be the manifest's", "app/other", "v1", schema1.MediaTypeSigned, raw, 400, "NAME_INVALID"},
		{"both are told", "app/other", "v2", schema1.MediaTypeSigned, raw, 400, "NAME_INVALID TAG_INVALID"},
		{"the digest must be the payload's", "app/hello", string(digest.FromString(raw)), schema1.MediaTypeSigned, raw, 400, "MANIFEST_INVALID"},
		{"a layer that is missing", "app/hello", "v1", schema1.MediaTypeSigned, string(blobless.Raw()), 404, "BLOB_UNKNOWN"},
		{"a parent that is missing", "app/hello", "v1", schema1.MediaTypeSigned, string(lonely.Raw()), 400, "MANIFEST_INVALID"},
		{"no layers at all", "app/hello", "v1", schema1.MediaType, noLayers, 400, "MANIFEST_INVALID"},
		{"a signature of something else", "app/hello", "v1", schema1.MediaTypeSigned, strings.Replace(raw, `"amd64"`, `"arm64"`, 1), 400, "MANIFEST_INVALID"},
		{"a media type that is not taken", "app/hello", "v1", "application/x-tar", raw, 415, "UNSUPPORTED"},
		{"another format than it says", "app/hello", "v1", v1.MediaTypeImageManifest, raw, 400, "MANIFEST_INVALID"},
		{"a name that no repository can have", "App/Hello", "v1", schema1.MediaTypeSigned, raw, 400, "NAME_INVALID"},
		{"by tag", "app/hello", "v1", schema1.MediaTypeSigned, raw, 201, ""},
		{"by the payload's digest", "app/hello", d, "application/json", raw, 201, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.T = t
			resp := f.want(f.put(tt.repository, tt.ref, tt.mediaType, tt.raw), tt.status)
			if tt.status == http.StatusCreated {
				f.want(resp, tt.status, "Location", "/v2/app/hello/manifests/"+d, "Docker-Content-Digest", d)
			} else if codes := f.codes(resp); codes != tt.codes {
				t.Errorf("codes %s, want %s", codes, tt.codes)
			}
		})
	}
}

func TestSchema1IsServedAsItWasPushed(t *testing.T) {
	f := serve(t, nil)
	m := f.oldImage("app/hello", "app/hello", "v1")
	f.want(f.put("app/hello", "v1", schema1.MediaTypeSigned, string(m.Raw())), http.StatusCreated)
	for _, ref := range []string{"v1", string(m.Digest())} {
		for _, accept := range []string{onlySchema1, v1.MediaTypeImageManifest, "*/*", ""} {
			resp := f.want(f.do("GET", "/v2/app/hello/manifests/"+ref, "", "Accept", accept), http.StatusOK,
				"Content-Type", schema1.MediaTypeSigned, "Docker-Content-Digest", string(m.Digest()), "Content-Length", fmt.Sprint(len(m.Raw())))
			if f.body(resp) != string(m.Raw()) {
				t.Errorf("%s for %q: other bytes came out", ref, accept)
			}
			f.want(f.do("HEAD", "/v2/app/hello/manifests/"+ref, ""), http.StatusOK, "Content-Length", fmt.Sprint(len(m.Raw())))
		}
	}
}

func TestSchema1OfTheLibrary(t *testing.T) {
	f := serve(t, nil)
	for _, name := range []string{"hello", "library/hello"} {
		m := f.oldImage("library/hello", name, "v1")
		f.want(f.put("library/hello", "v1", schema1.MediaTypeSigned, string(m.Raw())), http.StatusCreated)
	}
	f.image("library/new", "v1", manifest.MediaTypeDockerManifest)
	made := f.generated("library/new", "v1")
	if made.Name != "new" {
		t.Errorf("a generated manifest of a library repository has the name %q", made.Name)
	}
}

// generated asks as a client does that reads schema 1 only.
func (f *fixture) generated(repository, tag string) *schema1.Manifest {
	f.Helper()
	resp := f.want(f.do("GET", "/v2/"+repository+"/manifests/"+tag, "", "Accept", onlySchema1), http.StatusOK, "Content-Type", schema1.MediaTypeSigned)
	m, err := schema1.Parse(resp.Header.Get("Content-Type"), []byte(f.body(resp)))
	f.check(err)
	_, err = m.Verify()
	f.check(err)
	f.want(resp, http.StatusOK, "Docker-Content-Digest", string(m.Digest()), "Content-Length", fmt.Sprint(len(m.Raw())))
	return m
}

// By tag and by digest are different routes: a tag that has no such manifest gets one, a digest names
// bytes.
func TestSchema1IsGeneratedForATag(t *testing.T) {
	for _, mediaType := range []string{manifest.MediaTypeDockerManifest, v1.MediaTypeImageManifest} {
		f := serve(t, nil)
		d := f.image("app/hello", "v1", mediaType)
		m := f.generated("app/hello", "v1")
		if m.Name != "app/hello" || m.Tag != "v1" {
			t.Errorf("it is of %s:%s", m.Name, m.Tag)
		}
		chain, err := m.Chain()
		f.check(err)
		if len(chain) != 2 || chain[1].BlobSum != schema1.EmptyLayerDigest {
			t.Errorf("got layers %+v", chain)
		}
		for _, l := range chain {
			f.want(f.do("GET", "/v2/app/hello/blobs/"+string(l.BlobSum), ""), http.StatusOK)
		}
		f.want(f.do("GET", "/v2/app/hello/manifests/v1", ""), http.StatusOK, "Docker-Content-Digest", string(d))
		resp := f.want(f.do("GET", "/v2/app/hello/manifests/"+string(m.Digest()), ""), http.StatusOK)
		if f.body(resp) != string(m.Raw()) {
			t.Error("what was generated is not what was stored")
		}
		want := map[string]int{manifest.MediaTypeDockerManifest: 200, v1.MediaTypeImageManifest: 404}[mediaType]
		f.want(f.do("GET", "/v2/app/hello/manifests/"+string(d), "", "Accept", onlySchema1), want)
	}
}

// Of those who ask at once one makes the manifest, and the others get that one.
func TestSchema1IsGeneratedOnce(t *testing.T) {
	f := serve(t, nil)
	f.image("app/hello", "v1", manifest.MediaTypeDockerManifest)
	var mu sync.Mutex
	var got []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			resp := f.do("GET", "/v2/app/hello/manifests/v1", "", "Accept", onlySchema1)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, f.body(resp))
		})
	}
	wg.Wait()
	again := f.generated("app/hello", "v1")
	if len(slices.Compact(append(got, string(again.Raw())))) != 1 {
		t.Error("not all got the same bytes")
	}
	// What somebody else stored under that digest before is theirs to keep.
	theirs := f.signed(again)
	f.want(f.put("app/hello", string(again.Digest()), schema1.MediaTypeSigned, string(theirs.Raw())), http.StatusCreated)
	if got := f.generated("app/hello", "v1"); string(got.Raw()) != string(theirs.Raw()) {
		t.Error("the manifest that was stored is not the one that is served")
	}
}

func TestSchema1ThatCannotBeGenerated(t *testing.T) {
	f := serve(t, nil)
	f.tag("app/index", "v1")
	f.image("app/hello", "v1", v1.MediaTypeImageManifest)
	artifact := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[]}`,
		v1.MediaTypeImageManifest, f.blob("app/artifact", "{}"))
	f.want(f.put("app/artifact", "v1", v1.MediaTypeImageManifest, artifact), http.StatusCreated)
	for _, repository := range []string{"app/index", "app/artifact"} {
		resp := f.want(f.do("GET", "/v2/"+repository+"/manifests/v1", "", "Accept", onlySchema1), http.StatusNotFound)
		if text := f.body(resp); !strings.Contains(text, "MANIFEST_UNKNOWN") || !strings.Contains(text, "application/vnd.oci.image") {
			t.Errorf("%s: the reason is %s", repository, text)
		}
	}
}

// A registry that is not to be changed makes nothing, and says so.
func TestSchema1OfAReadOnlyRegistry(t *testing.T) {
	f := serve(t, nil)
	f.image("app/hello", "v1", manifest.MediaTypeDockerManifest)
	f.handler = server.New(f.registry, &server.Options{ReadOnly: true})
	resp := f.want(f.do("GET", "/v2/app/hello/manifests/v1", "", "Accept", onlySchema1), http.StatusNotFound)
	if text := f.body(resp); !strings.Contains(text, "read-only") {
		t.Errorf("the reason is %s", text)
	}
}

func TestSchema1DeleteByDigestTakesItsTags(t *testing.T) {
	f := serve(t, nil)
	m := f.oldImage("app/hello", "app/hello", "v1")
	f.want(f.put("app/hello", "v1", schema1.MediaTypeSigned, string(m.Raw())), http.StatusCreated)
	f.want(f.do("DELETE", "/v2/app/hello/manifests/"+string(m.Digest()), ""), http.StatusAccepted)
	if codes := f.codes(f.want(f.do("DELETE", "/v2/app/hello/manifests/"+string(m.Digest()), ""), http.StatusNotFound)); codes != "MANIFEST_UNKNOWN" {
		t.Errorf("codes %s", codes)
	}
	f.want(f.do("GET", "/v2/app/hello/manifests/v1", ""), http.StatusNotFound)
}
