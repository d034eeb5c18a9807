package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
	"github.com/berthoci/berth/server"
)

const (
	dockerImage = manifest.MediaTypeDockerManifest
	dockerList  = manifest.MediaTypeDockerManifestList
	ociImage    = v1.MediaTypeImageManifest
	ociIndex    = v1.MediaTypeImageIndex
)

// list pushes a list of images, which it has pushed too, by their platforms.
func (f *fixture) list(repository, tag, listType, imageType string, platforms ...string) (list digest.Digest, children []digest.Digest) {
	f.Helper()
	var entries []string
	for _, platform := range platforms {
		os, arch, _ := strings.Cut(platform, "/")
		child := f.image(repository, tag+"-"+arch, imageType)
		children = append(children, child)
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1,"platform":{"os":%q,"architecture":%q}}`, imageType, child, os, arch))
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, listType, strings.Join(entries, ","))
	f.want(f.put(repository, tag, listType, raw), http.StatusCreated)
	return digest.FromString(raw), children
}

// Every form that the field has in practice, and what it is answered with.
func TestAcceptIsNegotiated(t *testing.T) {
	f := serve(t, nil)
	oci, docker := f.image("app/hello", "oci", ociImage), f.image("app/hello", "docker", dockerImage)
	list, children := f.list("app/hello", "list", dockerList, dockerImage, "linux/arm64", "linux/amd64")
	foreign, _ := f.list("app/hello", "foreign", dockerList, dockerImage, "linux/s390x")
	index, _ := f.list("app/hello", "index", ociIndex, ociImage, "linux/amd64")
	for _, tt := range []struct {
		name, ref string
		accept    []string
		want      digest.Digest // empty: refused
	}{
		{"no field takes everything", "oci", nil, oci},
		{"an empty field does", "oci", []string{""}, oci},
		{"named", "oci", []string{ociImage}, oci},
		{"named with parameters", "oci", []string{ociImage + ";charset=utf-8;q=0.1"}, oci},
		{"in a list", "oci", []string{dockerImage + ", " + ociImage + " ,text/html"}, oci},
		{"in the second field", "oci", []string{dockerImage, ociImage}, oci},
		{"in another case", "oci", []string{strings.ToUpper(ociImage)}, oci},
		{"by a wildcard", "oci", []string{"*/*"}, oci},
		{"by half a wildcard", "oci", []string{"application/*;q=0.5"}, oci},
		{"refused by its weight", "oci", []string{"*/*, " + ociImage + ";q=0"}, ""},
		{"OCI's for a client of Docker's time", "oci", []string{dockerImage, dockerList}, ""},
		{"OCI's index for a client of images", "index", []string{dockerImage, ociImage}, ""},
		{"OCI's index for who reads it", "index", []string{ociIndex}, index},
		{"Docker's to a client that does not name it", "docker", []string{ociImage}, docker},
		{"a list to who reads it", "list", []string{dockerList}, list},
		{"the default child of a list", "list", []string{dockerImage}, children[1]},
		{"a list without that child", "foreign", []string{dockerImage}, ""},
		{"the same for everybody by digest", string(list), []string{dockerImage}, list},
		{"and without the child", string(foreign), []string{dockerImage}, foreign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.T = t
			for _, method := range []string{"GET", "HEAD"} {
				resp := f.doWith(method, "/v2/app/hello/manifests/"+tt.ref, tt.accept)
				if tt.want != "" {
					f.want(resp, http.StatusOK, "Docker-Content-Digest", string(tt.want), "Etag", `"`+string(tt.want)+`"`)
					continue
				}
				f.want(resp, http.StatusNotFound)
				if text := f.body(resp); method == "GET" && (!strings.Contains(text, "MANIFEST_UNKNOWN") || !strings.Contains(text, "application/vnd")) {
					t.Errorf("the reason is %s", text)
				}
			}
		})
	}
}

// doWith sends several Accept fields.
func (f *fixture) doWith(method, target string, accept []string) *http.Response {
	f.Helper()
	return f.send(method, target, "", http.Header{"Accept": accept})
}

func TestReadsAlwaysAndWritesUnlessReadOnly(t *testing.T) {
	f := serve(t, nil)
	d := string(f.image("app/hello", "v1", ociImage))
	f.handler = server.New(f.registry, &server.Options{ReadOnly: true})
	for _, ref := range []string{"v1", d} {
		for method, status := range map[string]int{"GET": 200, "HEAD": 200, "PUT": 405, "DELETE": 405, "POST": 405} {
			resp := f.want(f.do(method, "/v2/app/hello/manifests/"+ref, "{}"), status)
			if allow := resp.Header.Get("Allow"); status == 405 && method != "POST" && allow != "GET, HEAD" {
				t.Errorf("%s: Allow is %q", method, allow)
			}
		}
	}
}

// A condition is answered before the manifest is read: its file may be gone.
func TestNotModifiedBeforeTheManifestIsRead(t *testing.T) {
	f := serve(t, nil)
	d := string(f.image("app/hello", "v1", ociImage))
	f.handler = server.New(unread{f.registry}, nil)
	for _, condition := range []string{d, `"` + d + `"`, `"x", W/"` + d + `"`, "*"} {
		f.want(f.do("GET", "/v2/app/hello/manifests/v1", "", "If-None-Match", condition), http.StatusNotModified, "Etag", `"`+d+`"`, "Docker-Content-Digest", d)
	}
	f.want(f.do("GET", "/v2/app/hello/manifests/v1", "", "If-None-Match", `"x"`), http.StatusNotFound)
}

// unread is a registry whose manifests cannot be read.
type unread struct{ berth.Registry }

func (u unread) Repository(name string) (berth.Repository, error) {
	r, err := u.Registry.Repository(name)
	return unreadRepository{r}, err
}

type unreadRepository struct{ berth.Repository }

func (unreadRepository) FetchManifest(context.Context, string, *berth.FetchOptions) (berth.Manifest, error) {
	return berth.Manifest{}, berth.ErrManifestUnknown
}

func TestSeveralErrorsComeTogether(t *testing.T) {
	f := serve(t, nil)
	a, b := digest.FromString("a"), digest.FromString("b")
	raw := fmt.Sprintf(`{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":1},"layers":[{"mediaType":%q,"digest":%q,"size":1}]}`,
		v1.MediaTypeImageConfig, a, v1.MediaTypeImageLayer, b)
	resp := f.want(f.put("app/hello", "v1", ociImage, raw), http.StatusBadRequest)
	text := f.body(resp)
	for _, d := range []digest.Digest{a, b} {
		if strings.Count(text, string(d)) != 1 {
			t.Errorf("%s is not named once in %s", d, text)
		}
	}
	if strings.Count(text, "MANIFEST_BLOB_UNKNOWN") != 2 {
		t.Errorf("got %s", text)
	}
	f.want(f.do("GET", "/v2/app/hello/manifests/v1", ""), http.StatusNotFound)
}

func TestNeitherTagNorDigest(t *testing.T) {
	f := serve(t, nil)
	for ref, code := range map[string]string{"-bad": "TAG_INVALID", strings.Repeat("a", 129): "TAG_INVALID", "sha256:abc": "DIGEST_INVALID", "md5:abc": "DIGEST_INVALID"} {
		if got := f.codes(f.want(f.put("app/hello", ref, ociIndex, emptyIndex), http.StatusBadRequest)); got != code {
			t.Errorf("%.20s: code %s, want %s", ref, got, code)
		}
	}
}

func TestDeleteByTagAndByDigest(t *testing.T) {
	f := serve(t, nil)
	f.tag("app/hello", "a", "b")
	d := "/v2/app/hello/manifests/" + string(digest.FromString(emptyIndex))
	f.want(f.do("DELETE", "/v2/app/hello/manifests/a", ""), http.StatusAccepted)
	f.want(f.do("GET", "/v2/app/hello/manifests/a", ""), http.StatusNotFound)
	f.want(f.do("GET", "/v2/app/hello/manifests/b", ""), http.StatusOK)
	f.want(f.do("DELETE", d, "", "If-Match", `"sha256:other"`), http.StatusPreconditionFailed)
	f.want(f.do("DELETE", d, "", "If-Match", "*"), http.StatusAccepted)
	f.want(f.do("GET", "/v2/app/hello/manifests/b", ""), http.StatusNotFound)
	f.want(f.do("DELETE", d, ""), http.StatusNotFound)
}

// A registry that takes no writes says so, and not that it does not know the media type.
func TestARegistryThatTakesNoWrites(t *testing.T) {
	f := serve(t, nil)
	d := string(f.image("app/hello", "v1", ociImage))
	f.handler = server.New(cacheOnly{f.registry}, nil)
	f.want(f.do("GET", "/v2/app/hello/manifests/v1", ""), http.StatusOK)
	for target, method := range map[string]string{"manifests/v1": "PUT", "manifests/v2": "DELETE", "manifests/" + d: "DELETE", "blobs/uploads/": "POST"} {
		if codes := f.codes(f.want(f.do(method, "/v2/app/hello/"+target, emptyIndex, "Content-Type", ociIndex), http.StatusMethodNotAllowed)); codes != "UNSUPPORTED" {
			t.Errorf("%s %s: codes %s", method, target, codes)
		}
	}
}

type cacheOnly struct{ berth.Registry }

func (c cacheOnly) Repository(name string) (berth.Repository, error) {
	r, err := c.Registry.Repository(name)
	return cachedRepository{r}, err
}

type cachedRepository struct{ berth.Repository }

func (cachedRepository) PushManifest(context.Context, []byte, *berth.PushOptions) (v1.Descriptor, error) {
	return v1.Descriptor{}, berth.ErrUnsupported
}

func (cachedRepository) NewUpload(context.Context, *berth.UploadOptions) (berth.Upload, error) {
	return nil, berth.ErrUnsupported
}

func (cachedRepository) DeleteManifest(context.Context, digest.Digest) error {
	return berth.ErrUnsupported
}

func (cachedRepository) Untag(context.Context, string, *berth.UntagOptions) error {
	return berth.ErrUnsupported
}

// A pull is told before any of its bytes are sent, and also where they do not arrive.
func TestAPullIsToldBeforeItIsAnswered(t *testing.T) {
	var w *httptest.ResponseRecorder
	sent := -1
	f := serve(t, &server.Options{Notify: func(e server.Event) {
		if e.Kind == server.Pulled {
			sent = w.Body.Len()
		}
	}})
	f.image("app/hello", "v1", ociImage)
	w = httptest.NewRecorder()
	f.handler.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost:5000/v2/app/hello/manifests/v1", nil))
	if sent != 0 || w.Body.Len() == 0 {
		t.Errorf("when it was told, %d bytes of %d were sent", sent, w.Body.Len())
	}
	sent = -1
	f.handler.ServeHTTP(broken{w}, httptest.NewRequest("GET", "http://localhost:5000/v2/app/hello/manifests/v1", nil))
	if sent < 0 {
		t.Error("a pull that broke off was not told")
	}
}

// broken is an answer whose client has gone.
type broken struct{ http.ResponseWriter }

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Every push, pull and delete is an event; a push names its tags and all that has to be brought along.
func TestEvents(t *testing.T) {
	var mu sync.Mutex
	var events []server.Event
	f := serve(t, &server.Options{Notify: func(e server.Event) {
		mu.Lock()
		defer mu.Unlock()
		events = append(events, e)
	}})
	d := f.image("app/hello", "v1", ociImage)
	at := "/v2/app/hello/manifests/"
	f.want(f.put("app/hello", "v1", "text/plain", emptyIndex), http.StatusUnsupportedMediaType)
	f.want(f.put("app/hello", "v2", ociImage, "{}"), http.StatusBadRequest)
	f.want(f.do("GET", at+"v1", ""), http.StatusOK)
	f.want(f.do("GET", at+string(d), ""), http.StatusOK)
	f.want(f.do("HEAD", at+"v1", ""), http.StatusOK)
	f.want(f.do("GET", at+"v1", "", "If-None-Match", "*"), http.StatusNotModified)
	f.want(f.do("DELETE", at+"v1", ""), http.StatusAccepted)
	f.want(f.do("DELETE", at+string(d), ""), http.StatusAccepted)
	f.want(f.do("DELETE", at+string(d), ""), http.StatusNotFound)
	m := f.oldImage("app/old", "app/old", "v1")
	f.want(f.put("app/old", "v1", schema1.MediaTypeSigned, string(m.Raw())), http.StatusCreated)
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.Kind, e.Repository, e.Tags, e.Descriptor.Digest, len(e.Blobs)))
	}
	want := []string{
		fmt.Sprint(server.Pushed, "app/hello", []string{"v1"}, d, 2),
		fmt.Sprint(server.Pulled, "app/hello", []string{"v1"}, d, 0),
		fmt.Sprint(server.Pulled, "app/hello", []string{}, d, 0),
		fmt.Sprint(server.Deleted, "app/hello", []string{"v1"}, "", 0),
		fmt.Sprint(server.Deleted, "app/hello", []string{}, d, 0),
		fmt.Sprint(server.Pushed, "app/old", []string{"v1"}, m.Digest(), 2),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
