package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
	"github.com/berthoci/berth/server"
)

const emptyIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`

// fixture is a server over a layout, and a client that says what is wrong.
type fixture struct {
	*testing.T
	handler  http.Handler
	registry berth.Registry
}

func serve(t *testing.T, opts *server.Options) *fixture {
	t.Helper()
	layout, err := ocilayout.Open(t.Context(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := layout.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{t, server.New(layout, opts), layout}
}

// do sends a request; header is a list of keys and values.
func (f *fixture) do(method, target, body string, header ...string) *http.Response {
	f.Helper()
	all := http.Header{}
	for i := 0; i < len(header); i += 2 {
		all.Set(header[i], header[i+1])
	}
	return f.send(method, target, body, all)
}

func (f *fixture) send(method, target, body string, header http.Header) *http.Response {
	f.Helper()
	req := httptest.NewRequest(method, target, strings.NewReader(body))
	req.Host = "localhost:5000"
	if host, given := header["Host"]; given {
		req.Host = host[0]
	}
	req.Header = header
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, req)
	return w.Result()
}

func (f *fixture) want(resp *http.Response, status int, header ...string) *http.Response {
	f.Helper()
	if resp.StatusCode != status {
		body, _ := io.ReadAll(resp.Body)
		f.Fatalf("status %d, want %d: %s", resp.StatusCode, status, body)
	}
	for i := 0; i < len(header); i += 2 {
		if got := resp.Header.Get(header[i]); got != header[i+1] {
			f.Errorf("%s is %q, want %q", header[i], got, header[i+1])
		}
	}
	return resp
}

func (f *fixture) body(resp *http.Response) string {
	f.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return string(body)
}

// codes reads the error codes of an answer.
func (f *fixture) codes(resp *http.Response) string {
	f.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	text := f.body(resp)
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		f.Fatalf("the error body is %q", text)
	}
	var codes []string
	for _, e := range body.Errors {
		if e.Message == "" {
			f.Errorf("%s has no message", e.Code)
		}
		codes = append(codes, e.Code)
	}
	return strings.Join(codes, " ")
}

func (f *fixture) blob(repository, content string) digest.Digest {
	f.Helper()
	d := digest.FromString(content)
	f.want(f.do("POST", "/v2/"+repository+"/blobs/uploads/?digest="+string(d), content), http.StatusCreated)
	return d
}

func (f *fixture) tag(repository string, tags ...string) {
	f.Helper()
	for _, tag := range tags {
		f.want(f.do("PUT", "/v2/"+repository+"/manifests/"+tag, emptyIndex, "Content-Type", v1.MediaTypeImageIndex), http.StatusCreated)
	}
}

func TestBlobUploadsInEveryWay(t *testing.T) {
	content := "some content"
	d := digest.FromString(content)
	ways := map[string]func(f *fixture) *http.Response{
		"post": func(f *fixture) *http.Response {
			return f.do("POST", "/v2/x/blobs/uploads/?digest="+string(d), content)
		},
		"post, put": func(f *fixture) *http.Response {
			at := f.want(f.do("POST", "/v2/x/blobs/uploads/", ""), http.StatusAccepted, "Range", "0-0", "Upload-Offset", "0").Header.Get("Location")
			return f.do("PUT", at+"?digest="+string(d), content)
		},
		"post, stream, put": func(f *fixture) *http.Response {
			at := f.do("POST", "/v2/x/blobs/uploads/", "").Header.Get("Location")
			at = f.want(f.do("PATCH", at, content), http.StatusAccepted, "Range", "0-11").Header.Get("Location")
			return f.do("PUT", at+"?digest="+string(d), "")
		},
		"post, chunks, put with the last": func(f *fixture) *http.Response {
			at := f.do("POST", "/v2/x/blobs/uploads/", "").Header.Get("Location")
			at = f.want(f.do("PATCH", at, content[:5], "Content-Range", "0-4"), http.StatusAccepted, "Range", "0-4").Header.Get("Location")
			f.want(f.do("GET", at, ""), http.StatusNoContent, "Range", "0-4", "Upload-Offset", "5")
			return f.do("PUT", at+"?digest="+string(d), content[5:], "Content-Range", "5-11")
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			f := serve(t, nil)
			f.want(way(f), http.StatusCreated, "Location", "/v2/x/blobs/"+string(d), "Docker-Content-Digest", string(d), "Range", "")
			if got := f.body(f.want(f.do("GET", "/v2/x/blobs/"+string(d), ""), http.StatusOK)); got != content {
				t.Errorf("came out as %q", got)
			}
		})
	}
}

func TestUploadsThatGoWrong(t *testing.T) {
	f := serve(t, nil)
	at := f.do("POST", "/v2/x/blobs/uploads/", "").Header.Get("Location")
	f.want(f.do("PATCH", at, "abc", "Content-Range", "0-2"), http.StatusAccepted)

	f.want(f.do("PATCH", at, "xyz", "Content-Range", "5-7"), http.StatusRequestedRangeNotSatisfiable, "Range", "0-2", "Location", at)
	f.want(f.do("PATCH", at, "xyz", "Content-Range", "nonsense"), http.StatusRequestedRangeNotSatisfiable)
	if codes := f.codes(f.want(f.do("PATCH", at, "xyz", "Content-Range", "3-9"), http.StatusBadRequest)); codes != "SIZE_INVALID" {
		t.Errorf("a chunk shorter than its range: %s", codes)
	}
	if codes := f.codes(f.want(f.do("PUT", at, ""), http.StatusBadRequest)); codes != "DIGEST_INVALID" {
		t.Errorf("a PUT without digest: %s", codes)
	}
	f.want(f.do("GET", at, ""), http.StatusNoContent, "Range", "0-2")
	if codes := f.codes(f.want(f.do("PUT", at+"?digest="+string(digest.FromString("other")), ""), http.StatusBadRequest)); codes != "DIGEST_INVALID" {
		t.Errorf("another digest: %s", codes)
	}
	if codes := f.codes(f.want(f.do("GET", at, ""), http.StatusNotFound)); codes != "BLOB_UPLOAD_UNKNOWN" {
		t.Errorf("an upload that is over: %s", codes)
	}
	at = f.do("POST", "/v2/x/blobs/uploads/", "").Header.Get("Location")
	f.want(f.do("DELETE", at, ""), http.StatusNoContent)
	f.want(f.do("PATCH", at, "abc"), http.StatusNotFound)
	f.want(f.do("PATCH", strings.Replace(at, "/x/", "/y/", 1), "abc"), http.StatusNotFound)
}

// A body that breaks off leaves what arrived, to be resumed.
func TestABodyThatBreaksOff(t *testing.T) {
	f := serve(t, nil)
	srv := httptest.NewServer(f.handler)
	defer srv.Close()
	at := f.do("POST", "/v2/x/blobs/uploads/", "").Header.Get("Location")
	body := io.MultiReader(strings.NewReader("abc"), brokenReader{})
	req, err := http.NewRequest("PATCH", srv.URL+at, body)
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 10
	if _, err := srv.Client().Do(req); err == nil {
		t.Fatal("the request went through")
	}
	eventually(t, func() bool { return f.do("GET", at, "").Header.Get("Upload-Offset") == "3" })
	f.want(f.do("PUT", at+"?digest="+string(digest.FromString("abcdef")), "def"), http.StatusCreated)
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatal("it did not come about")
}

func TestMount(t *testing.T) {
	f := serve(t, nil)
	d := f.blob("from", "shared")
	f.want(f.do("POST", "/v2/to/blobs/uploads/?mount="+string(d)+"&from=from", ""), http.StatusCreated, "Location", "/v2/to/blobs/"+string(d), "Docker-Content-Digest", string(d))
	f.want(f.do("POST", "/v2/any/blobs/uploads/?mount="+string(d), ""), http.StatusCreated)
	f.want(f.do("POST", "/v2/to/blobs/uploads/?mount="+string(digest.FromString("none"))+"&from=from", ""), http.StatusAccepted)
	f.want(f.do("HEAD", "/v2/to/blobs/"+string(d), ""), http.StatusOK, "Content-Length", "6")
}

func TestBlobRangesAndConditions(t *testing.T) {
	f := serve(t, nil)
	d := f.blob("x", "0123456789")
	at := "/v2/x/blobs/" + string(d)
	f.want(f.do("HEAD", at, ""), http.StatusOK, "Content-Length", "10", "Content-Type", "application/octet-stream", "Docker-Content-Digest", string(d), "Etag", `"`+string(d)+`"`, "Accept-Ranges", "bytes")
	for header, want := range map[string]string{"bytes=2-4": "234", "bytes=7-": "789", "bytes=-2": "89", "bytes=0-0": "0"} {
		if got := f.body(f.want(f.do("GET", at, "", "Range", header), http.StatusPartialContent)); got != want {
			t.Errorf("%s gives %q, want %q", header, got, want)
		}
	}
	f.want(f.do("GET", at, "", "Range", "bytes=20-30"), http.StatusRequestedRangeNotSatisfiable)
	for _, method := range []string{"GET", "HEAD"} {
		f.want(f.do(method, at, "", "If-None-Match", `"`+string(d)+`"`), http.StatusNotModified)
	}
	if codes := f.codes(f.want(f.do("GET", "/v2/y/blobs/"+string(d), ""), http.StatusNotFound)); codes != "BLOB_UNKNOWN" {
		t.Errorf("another repository's blob: %s", codes)
	}
	f.want(f.do("DELETE", at, ""), http.StatusAccepted)
	f.want(f.do("DELETE", at, ""), http.StatusNotFound)
}

func TestManifests(t *testing.T) {
	f := serve(t, nil)
	d := digest.FromString(emptyIndex)
	f.want(f.do("PUT", "/v2/x/manifests/v1", emptyIndex, "Content-Type", v1.MediaTypeImageIndex), http.StatusCreated,
		"Location", "/v2/x/manifests/"+string(d), "Docker-Content-Digest", string(d))
	for _, ref := range []string{"v1", string(d)} {
		at := "/v2/x/manifests/" + ref
		resp := f.want(f.do("GET", at, ""), http.StatusOK, "Content-Type", v1.MediaTypeImageIndex, "Docker-Content-Digest", string(d),
			"Content-Length", fmt.Sprint(len(emptyIndex)), "Etag", `"`+string(d)+`"`)
		if got := f.body(resp); got != emptyIndex {
			t.Errorf("%s came out as %q", ref, got)
		}
		f.want(f.do("HEAD", at, ""), http.StatusOK, "Content-Length", fmt.Sprint(len(emptyIndex)))
		for _, etag := range []string{`"` + string(d) + `"`, string(d), `"x", "` + string(d) + `"`, "*"} {
			f.want(f.do("GET", at, "", "If-None-Match", etag), http.StatusNotModified)
			f.want(f.do("HEAD", at, "", "If-None-Match", etag), http.StatusNotModified)
		}
	}
	resp := f.want(f.do("PUT", "/v2/x/manifests/"+string(d)+"?tag=a&tag=b", emptyIndex), http.StatusCreated)
	if got := resp.Header.Values("OCI-Tag"); len(got) != 2 {
		t.Errorf("OCI-Tag is %q", got)
	}
	f.want(f.do("DELETE", "/v2/x/manifests/a", ""), http.StatusAccepted)
	f.want(f.do("GET", "/v2/x/manifests/a", ""), http.StatusNotFound)
	f.want(f.do("GET", "/v2/x/manifests/b", ""), http.StatusOK)
	f.want(f.do("DELETE", "/v2/x/manifests/"+string(d), ""), http.StatusAccepted)
	f.want(f.do("GET", "/v2/x/manifests/b", ""), http.StatusNotFound)
}

func TestManifestsThatAreRefused(t *testing.T) {
	f := serve(t, nil)
	missing := digest.FromString("missing")
	index := `{"schemaVersion":2,"manifests":[{"digest":"` + string(missing) + `","size":1},{"digest":"` + string(digest.FromString("gone")) + `","size":1}]}`
	for _, tt := range []struct {
		name, ref, contentType, body string
		status                       int
		codes                        string
	}{
		{"not JSON", "v1", v1.MediaTypeImageManifest, "<html>", 400, "MANIFEST_INVALID"},
		{"another type than it says", "v1", v1.MediaTypeImageManifest, emptyIndex, 400, "MANIFEST_INVALID"},
		{"an unknown type", "v1", "text/plain", emptyIndex, 415, "UNSUPPORTED"},
		{"missing children, one error each", "v1", v1.MediaTypeImageIndex, index, 400, "MANIFEST_BLOB_UNKNOWN MANIFEST_BLOB_UNKNOWN"},
		{"another digest", string(missing), v1.MediaTypeImageIndex, emptyIndex, 400, "DIGEST_INVALID"},
		{"too large", "v1", v1.MediaTypeImageIndex, strings.Repeat(" ", berth.MaxManifestSize+1), 413, "SIZE_INVALID"},
		{"a bad tag", "v1?tag=-", v1.MediaTypeImageIndex, emptyIndex, 400, "TAG_INVALID"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.T = t
			resp := f.want(f.do("PUT", "/v2/x/manifests/"+tt.ref, tt.body, "Content-Type", tt.contentType), tt.status)
			if codes := f.codes(resp); codes != tt.codes {
				t.Errorf("codes %s, want %s", codes, tt.codes)
			}
		})
	}
	f.T = t
	f.want(f.do("GET", "/v2/x/manifests/v1", ""), http.StatusNotFound)
}

func TestListsInPages(t *testing.T) {
	f := serve(t, nil)
	f.tag("x", "a", "b", "c", "d", "e")
	f.tag("y", "a")
	tags := func(target string) (got []string, next string) {
		var list struct {
			Name string
			Tags []string
		}
		resp := f.want(f.do("GET", target, ""), http.StatusOK, "Content-Type", "application/json")
		if err := json.Unmarshal([]byte(f.body(resp)), &list); err != nil || list.Tags == nil || list.Name != "x" {
			t.Fatalf("%s: %+v, %v", target, list, err)
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
		return list.Tags, next
	}
	for target, want := range map[string]string{
		"": "a b c d e", "?n=99999999999999999999": "a b c d e", "?n=0": "", "?n=5": "a b c d e",
		"?last=c": "d e", "?last=bb": "c d e", "?last=zzz": "", "?n=1&last=": "a",
	} {
		got, next := tags("/v2/x/tags/list" + target)
		if strings.Join(got, " ") != want || (next != "") != (target == "?n=1&last=") {
			t.Errorf("%q: got %q, next %q", target, got, next)
		}
	}
	var all []string
	for next := "/v2/x/tags/list?n=2"; next != ""; {
		var got []string
		got, next = tags(next)
		all = append(all, got...)
	}
	if strings.Join(all, "") != "abcde" {
		t.Errorf("by pages: %q", all)
	}
	f.want(f.do("GET", "/v2/x/tags/list?n=-1", ""), http.StatusBadRequest)
	f.want(f.do("GET", "/v2/absent/tags/list", ""), http.StatusNotFound)
	if got := f.body(f.want(f.do("GET", "/v2/_catalog?n=1", ""), http.StatusOK, "Link", `</v2/_catalog?last=x&n=1>; rel="next"`)); got != `{"repositories":["x"]}` {
		t.Errorf("catalog: %s", got)
	}
}

func TestReferrersOverHTTP(t *testing.T) {
	f := serve(t, nil)
	subject := digest.FromString("subject")
	for _, kind := range []string{"a/x", "a/y"} {
		m := `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageIndex + `","artifactType":"` + kind + `","manifests":[],"subject":{"digest":"` + string(subject) + `","size":1}}`
		f.want(f.do("PUT", "/v2/x/manifests/"+string(digest.FromString(m)), m), http.StatusCreated, "OCI-Subject", string(subject))
	}
	count := func(target string) int {
		var index v1.Index
		resp := f.want(f.do("GET", target, ""), http.StatusOK, "Content-Type", v1.MediaTypeImageIndex)
		if err := json.Unmarshal([]byte(f.body(resp)), &index); err != nil || index.Manifests == nil {
			t.Fatalf("%s: %v", target, err)
		}
		return len(index.Manifests)
	}
	at := "/v2/x/referrers/" + string(subject)
	if n := count(at); n != 2 {
		t.Errorf("%d referrers", n)
	}
	if n := count(at + "?artifactType=a/x"); n != 1 {
		t.Errorf("%d referrers of one type", n)
	}
	f.want(f.do("GET", at+"?artifactType=a/x", ""), http.StatusOK, "OCI-Filters-Applied", "artifactType")
	f.want(f.do("GET", at+"?n=1", ""), http.StatusOK, "OCI-Filters-Applied", "")
	if n := count("/v2/absent/referrers/" + string(subject)); n != 0 {
		t.Errorf("%d referrers in a repository that is not there", n)
	}
	f.want(f.do("GET", "/v2/x/referrers/nonsense", ""), http.StatusBadRequest)
}

// A page of referrers is bounded in bytes too: their annotations are the client's to choose.
func TestReferrersWithLongAnnotationsComeInPages(t *testing.T) {
	f := serve(t, nil)
	subject := digest.FromString("subject")
	for i := range 3 {
		m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],"subject":{"digest":%q,"size":1},"annotations":{"n":"%d%s"}}`,
			v1.MediaTypeImageIndex, subject, i, strings.Repeat("x", 3<<20))
		f.want(f.do("PUT", "/v2/x/manifests/"+string(digest.FromString(m)), m), http.StatusCreated)
	}
	pages, found := 0, 0
	for next := "/v2/x/referrers/" + string(subject); next != ""; pages++ {
		resp := f.want(f.do("GET", next, ""), http.StatusOK)
		var index v1.Index
		if err := json.Unmarshal([]byte(f.body(resp)), &index); err != nil {
			t.Fatal(err)
		}
		found += len(index.Manifests)
		next, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	}
	if pages != 3 || found != 3 {
		t.Errorf("%d referrers in %d pages", found, pages)
	}
}

func TestRoutesAndMethods(t *testing.T) {
	f := serve(t, nil)
	f.want(f.do("GET", "/v2/", ""), http.StatusOK, "Docker-Distribution-Api-Version", "registry/2.0", "Content-Type", "application/json")
	f.want(f.do("GET", "/v2", ""), http.StatusOK)
	f.want(f.do("GET", "/", ""), http.StatusNotFound)
	f.want(f.do("PUT", "/v2/", ""), http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
	f.want(f.do("POST", "/v2/x/manifests/v1", ""), http.StatusMethodNotAllowed, "Allow", "GET, HEAD, PUT, DELETE")
	f.want(f.do("GET", "/v2/UP/tags/list", ""), http.StatusBadRequest)
	resp := f.want(f.do("HEAD", "/v2/x/manifests/absent", ""), http.StatusNotFound)
	if body := f.body(resp); body != "" {
		t.Errorf("HEAD has a body: %q", body)
	}
}

func TestReadOnly(t *testing.T) {
	f := serve(t, &server.Options{ReadOnly: true})
	for _, request := range [][2]string{
		{"PUT", "/v2/x/manifests/v1"}, {"DELETE", "/v2/x/manifests/v1"}, {"POST", "/v2/x/blobs/uploads/"},
		{"DELETE", "/v2/x/blobs/" + string(digest.FromString(""))}, {"PATCH", "/v2/x/blobs/uploads/id"},
	} {
		resp := f.want(f.do(request[0], request[1], emptyIndex), http.StatusMethodNotAllowed, "Allow", "GET, HEAD")
		if codes := f.codes(resp); codes != "UNSUPPORTED" {
			t.Errorf("%s %s: %s", request[0], request[1], codes)
		}
	}
	f.want(f.do("GET", "/v2/", ""), http.StatusOK)
	f.want(f.do("GET", "/v2/_catalog", ""), http.StatusOK)
}

func TestSparse(t *testing.T) {
	f := serve(t, &server.Options{AllowMissing: true})
	index := `{"schemaVersion":2,"manifests":[{"digest":"` + string(digest.FromString("missing")) + `","size":1}]}`
	f.want(f.do("PUT", "/v2/x/manifests/v1", index), http.StatusCreated)
}

func TestErrorsNeverQuoteTheBody(t *testing.T) {
	f := serve(t, nil)
	secret := strings.Repeat("do-not-quote-me ", 1000)
	resp := f.want(f.do("PUT", "/v2/x/manifests/v1", `{"schemaVersion":2,"config":"`+secret+`"}`), http.StatusBadRequest)
	if body := f.body(resp); bytes.Contains([]byte(body), []byte("do-not-quote-me")) || len(body) > 500 {
		t.Errorf("the body of %d bytes quotes what was sent", len(body))
	}
}
