package server_test

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/internal/memory"
	"github.com/berthoci/berth/server"
)

// Whatever is asked, the answer is one of the specification's, and an error says what is wrong.
func FuzzRequest(f *testing.F) {
	d := string(digest.FromString(emptyIndex))
	for _, seed := range [][5]string{
		{"GET", "/v2/", "", "", ""},
		{"PUT", "/v2/x/manifests/v1", "", "Content-Type: application/vnd.oci.image.index.v1+json", emptyIndex},
		{"PUT", "/v2/x/manifests/" + d, "tag=a&tag=b", "If-Match: *\nIf-None-Match: \"x\"", emptyIndex},
		{"GET", "/v2/x/manifests/v1", "", "Accept: application/vnd.docker.distribution.manifest.v1+json;q=0.5, */*;q=0\nIf-None-Match: *", ""},
		{"POST", "/v2/x/blobs/uploads/", "digest-algorithm=sha512", "", ""},
		{"POST", "/v2/x/blobs/uploads/", "digest=" + d, "", emptyIndex},
		{"POST", "/v2/x/blobs/uploads/", "mount=" + d + "&from=y", "", ""},
		{"PATCH", "/v2/x/blobs/uploads/sha256-aaaaaaaaaaaaaaaaaaaaaaaaaa", "", "Content-Range: 0-1", "ab"},
		{"GET", "/v2/x/tags/list", "n=0&last=%00", "", ""},
		{"GET", "/v2/_catalog", "n=99999999999999999999", "", ""},
		{"GET", "/v2/x/referrers/" + d, "artifactType=a%2Fb", "", ""},
		{"DELETE", "/v2/x/manifests/v1", "", "If-Match: " + d, ""},
		{"OPTIONS", "/v2/../v2//", "", "Host: evil.example\nOrigin: null", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3], seed[4])
	}
	f.Fuzz(func(t *testing.T, method, path, query, header, body string) {
		req := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		req.Method, req.URL, req.Host = method, &url.URL{Path: path, RawQuery: query}, "localhost"
		req.ContentLength = int64(len(body))
		for line := range strings.SplitSeq(header, "\n") {
			if name, value, ok := strings.Cut(line, ": "); ok {
				req.Header.Add(name, value)
			}
		}
		w := httptest.NewRecorder()
		server.New(memory.New(), nil).ServeHTTP(w, req)
		if w.Code < 200 || w.Code >= 500 {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		var answer struct {
			Errors []struct{ Code, Message string }
		}
		if w.Code < 400 || method == http.MethodHead || w.Code == http.StatusRequestedRangeNotSatisfiable {
			return
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || len(answer.Errors) == 0 || answer.Errors[0].Code == "" || answer.Errors[0].Message == "" {
			t.Errorf("status %d: %v: %s", w.Code, err, w.Body)
		}
	})
}

// A range is either refused, or ignored, or what is sent is what it names.
func FuzzRange(f *testing.F) {
	for _, ranges := range []string{"", "bytes=0-0", "bytes=-1", "bytes=9-", "bytes=0-1,3-4", "bytes=5-1", "bytes=10-", "bytes=-0", "bytes=--1", "items=0-1", "bytes", "bytes=,",
		"bytes=0-99999999999999999999", "bytes= 0 - 1", "bytes=0-0" + strings.Repeat(",1-1", 70)} {
		f.Add(ranges)
	}
	const content = "0123456789"
	d := digest.FromString(content)
	handler := server.New(memory.New(), nil)
	put := httptest.NewRequest("POST", "http://localhost/v2/x/blobs/uploads/?digest="+string(d), strings.NewReader(content))
	handler.ServeHTTP(httptest.NewRecorder(), put)
	f.Fuzz(func(t *testing.T, ranges string) {
		req := httptest.NewRequest("GET", "http://localhost/v2/x/blobs/"+string(d), nil)
		req.Header["Range"] = []string{ranges}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		switch w.Code {
		case http.StatusOK:
			if w.Body.String() != content {
				t.Errorf("got %q", w.Body)
			}
		case http.StatusPartialContent:
			checkParts(t, w, content)
		case http.StatusRequestedRangeNotSatisfiable:
		default:
			t.Errorf("status %d", w.Code)
		}
	})
}

func checkParts(t *testing.T, w *httptest.ResponseRecorder, content string) {
	kind, params, err := mime.ParseMediaType(w.Header().Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" {
		checkPart(t, w.Header().Get("Content-Range"), w.Body.String(), content)
		return
	}
	parts := multipart.NewReader(w.Body, params["boundary"])
	for {
		part, err := parts.NextPart()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		checkPart(t, part.Header.Get("Content-Range"), string(body), content)
	}
}

func checkPart(t *testing.T, says, body, content string) {
	var first, last, size int
	if n, err := fmt.Sscanf(says, "bytes %d-%d/%d", &first, &last, &size); n != 3 || err != nil || size != len(content) || last < first-1 || last >= size {
		t.Fatalf("Content-Range is %q", says)
	}
	if body != content[first:last+1] {
		t.Errorf("%s: got %q", says, body)
	}
}
