package ocirequest

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

const (
	d256 = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	name = "a/blobs/uploads/tags/list/manifests/b"
)

// every is one request of each kind, and each of its variants.
var every = []Request{
	{Kind: Ping},
	{Kind: Catalog},
	{Kind: Catalog, N: 7, Last: "m&n=1"},
	{Kind: BlobGet, Repository: name, Digest: d256},
	{Kind: BlobHead, Repository: "x", Digest: d256},
	{Kind: BlobDelete, Repository: "x", Digest: d256},
	{Kind: ManifestGet, Repository: name, Reference: "v1"},
	{Kind: ManifestGet, Repository: "x", Reference: string(d256)},
	{Kind: ManifestHead, Repository: "x", Reference: "list"},
	{Kind: ManifestPut, Repository: "x", Reference: "v1"},
	{Kind: ManifestPut, Repository: "x", Reference: string(d256), Tags: []string{"1", "1.2", "latest"}},
	{Kind: ManifestDelete, Repository: "x", Reference: "v1"},
	{Kind: UploadStart, Repository: name},
	{Kind: UploadStart, Repository: "x", Algorithm: digest.SHA512},
	{Kind: UploadWhole, Repository: "x", Digest: d256},
	{Kind: UploadMount, Repository: "x", Digest: d256},
	{Kind: UploadMount, Repository: "x", Digest: d256, From: "y/z"},
	{Kind: UploadStatus, Repository: name, UploadID: "an-id"},
	{Kind: UploadChunk, Repository: "x", UploadID: "an-id"},
	{Kind: UploadFinish, Repository: "x", UploadID: "an-id", Digest: d256},
	{Kind: UploadCancel, Repository: "x", UploadID: "an-id"},
	{Kind: TagList, Repository: name},
	{Kind: TagList, Repository: "x", N: 0, Last: "v1"},
	{Kind: ReferrerList, Repository: name, Digest: d256},
	{Kind: ReferrerList, Repository: "x", Digest: d256, ArtifactType: "a/b+c", N: 3},
}

func TestWhatIsBuiltIsParsed(t *testing.T) {
	base := &url.URL{Scheme: "http", Host: "localhost:5000"}
	kinds := map[Kind]bool{}
	for _, want := range every {
		kinds[want.Kind] = true
		if want.Last == "" && want.N == 0 {
			want.N = NoLimit
		}
		httpRequest, err := want.New(t.Context(), base, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(httpRequest.Method, httpRequest.URL)
		if err != nil {
			t.Errorf("%s %s: %v", httpRequest.Method, httpRequest.URL, err)
			continue
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("%s %s:\n got %+v\nwant %+v", httpRequest.Method, httpRequest.URL, *got, want)
		}
	}
	if len(kinds) != int(Kinds) {
		t.Errorf("%d kinds of %d are covered", len(kinds), Kinds)
	}
}

func TestParseTakesWhatClientsSend(t *testing.T) {
	for _, tt := range []struct {
		method, target string
		want           Kind
	}{
		{"GET", "/v2", Ping},
		{"HEAD", "/v2/", Ping},
		{"HEAD", "/v2/x/tags/list", TagList},
		{"POST", "/v2/x/blobs/uploads", UploadStart},
		{"GET", "/v2/x/blobs/sha256%3Ae3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", BlobGet},
		{"GET", "/v2/a%2Fb/tags/list", TagList},
		{"PUT", "/v2/x/blobs/uploads/id", UploadFinish},
		{"PATCH", "/v2/x/blobs/uploads/id?_state=abc", UploadChunk},
		{"GET", "/v2/x/manifests/v1?ns=docker.io", ManifestGet},
		{"GET", "/v2/x/tags/list?n=99999999999999999999", TagList},
	} {
		u, err := url.Parse(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(tt.method, u)
		if err != nil || got.Kind != tt.want {
			t.Errorf("%s %s: got %+v, %v", tt.method, tt.target, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	many := "/v2/x/manifests/v1?tag=" + strings.Repeat("x&tag=", maxTags) + "y"
	for _, tt := range []struct {
		method, target string
		want           error
	}{
		{"GET", "/", ErrNoRoute},
		{"GET", "/v1/", ErrNoRoute},
		{"GET", "/v20/", ErrNoRoute},
		{"GET", "/v2/x", ErrNoRoute},
		{"GET", "/v2/x/", ErrNoRoute},
		{"GET", "/v2/x/blobs/", ErrNoRoute},
		{"GET", "/v2/manifests/v1", ErrNoRoute},
		{"GET", "/v2//manifests/v1", berth.ErrNameInvalid},
		{"GET", "/v2/X/manifests/v1", berth.ErrNameInvalid},
		{"GET", "/v2/x/../y/manifests/v1", berth.ErrNameInvalid},
		{"GET", "/v2/x/manifests/-v1", berth.ErrTagInvalid},
		{"GET", "/v2/x/manifests/sha256:short", berth.ErrDigestInvalid},
		{"GET", "/v2/x/blobs/latest", berth.ErrDigestInvalid},
		{"GET", "/v2/x/referrers/none", berth.ErrDigestInvalid},
		{"GET", "/v2/x/tags/list?n=-1", berth.ErrUnsupported},
		{"GET", "/v2/x/tags/list?n=-99999999999999999999", berth.ErrUnsupported},
		{"GET", "/v2/x/tags/list?n=many", berth.ErrUnsupported},
		{"GET", "/v2/x/tags/list?n=%zz", berth.ErrUnsupported},
		{"POST", "/v2/x/blobs/uploads/?digest=no", berth.ErrDigestInvalid},
		{"POST", "/v2/x/blobs/uploads/?digest-algorithm=md5", berth.ErrDigestInvalid},
		{"POST", "/v2/x/blobs/uploads/?mount=no", berth.ErrDigestInvalid},
		{"POST", "/v2/x/blobs/uploads/?mount=" + string(d256) + "&from=UP", berth.ErrNameInvalid},
		{"PUT", "/v2/x/blobs/uploads/id?digest=no", berth.ErrDigestInvalid},
		{"PUT", "/v2/x/manifests/v1?tag=not%20good", berth.ErrTagInvalid},
		{"PUT", many, berth.ErrTagInvalid},
	} {
		u, err := url.Parse(tt.target)
		if err != nil {
			u = &url.URL{Path: "/v2/x/tags/list", RawQuery: "n=%zz"}
		}
		if _, err := Parse(tt.method, u); !errors.Is(err, tt.want) {
			t.Errorf("%s %.80s: got %v, want %v", tt.method, tt.target, err, tt.want)
		}
	}
}

func TestAMethodThatIsNotTakenNamesThoseThatAre(t *testing.T) {
	for target, allow := range map[string]string{
		"/v2/":                            "GET, HEAD",
		"/v2/x/tags/list":                 "GET, HEAD",
		"/v2/x/blobs/" + string(d256):     "GET, HEAD, DELETE",
		"/v2/x/manifests/v1":              "GET, HEAD, PUT, DELETE",
		"/v2/x/blobs/uploads/":            "POST",
		"/v2/x/blobs/uploads/id":          "GET, PATCH, PUT, DELETE, HEAD",
		"/v2/x/referrers/" + string(d256): "GET, HEAD",
	} {
		_, err := Parse(http.MethodOptions, &url.URL{Path: target})
		var method *MethodError
		if !errors.As(err, &method) || method.Allow != allow {
			t.Errorf("%s: got %v, want it to allow %s", target, err, allow)
		}
	}
}

func TestChunkRange(t *testing.T) {
	for text, want := range map[string][2]int64{
		"0-0": {0, 0}, "5-9": {5, 9}, " 5-9 ": {5, 9}, "bytes 5-9/20": {5, 9}, "bytes 5-9/*": {5, 9},
	} {
		first, last, err := ParseChunkRange(text)
		if err != nil || first != want[0] || last != want[1] {
			t.Errorf("%q: got %d-%d, %v", text, first, last, err)
		}
	}
	for _, text := range []string{"", "-", "5", "5-", "-5", "9-5", "a-b", "5-9-10", "0-99999999999999999999", "0-9223372036854775807"} {
		if _, _, err := ParseChunkRange(text); !errors.Is(err, berth.ErrRangeInvalid) {
			t.Errorf("%q: got %v", text, err)
		}
	}
	for size, want := range map[int64]string{0: "0-0", 1: "0-0", 10: "0-9"} {
		if got := FormatRange(size); got != want {
			t.Errorf("%d bytes: got %q, want %q", size, got, want)
		}
	}
}

func TestIsLoopbackIsAnchored(t *testing.T) {
	for name, want := range map[string]bool{
		"localhost": true, "LOCALHOST.": true, "a.localhost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true,
		"127.0.0.1.evil.com": false, "localhost.evil.com": false, "notlocalhost": false, "10.0.0.1": false, "0.0.0.0": false, "": false,
	} {
		if got := IsLoopback(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, req := range every {
		f.Add(req.Method(), req.Path(), req.Query().Encode())
	}
	f.Add("GET", "/v2/../v2//", "n=-0&n=1&last=%00")
	f.Fuzz(func(t *testing.T, method, path, query string) {
		req, err := Parse(method, &url.URL{Path: path, RawQuery: query})
		if err != nil {
			return
		}
		again, err := Parse(req.Method(), &url.URL{Path: req.Path(), RawQuery: req.Query().Encode()})
		if err != nil {
			t.Fatalf("%+v is not parsed again: %v", req, err)
		}
		if again.Repository != req.Repository || again.Digest != req.Digest || again.Reference != req.Reference || again.UploadID != req.UploadID {
			t.Errorf("%+v comes back as %+v", req, again)
		}
	})
}
