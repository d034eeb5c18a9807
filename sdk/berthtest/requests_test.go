package berthtest_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/berthoci/berth/sdk/berthtest"
)

func TestOn(t *testing.T) {
	get := func(path string) berthtest.Request { return berthtest.Request{Method: http.MethodGet, Path: path} }
	for _, c := range []struct {
		pattern, path string
		want          bool
	}{
		{"/v2/", "/v2/", true},
		{"/v2/", "/v2/app", false},
		{"GET /v2/", "/v2/", true},
		{"HEAD /v2/", "/v2/", false},
		{"GET *", "/anything", true},
		{"* /v2/", "/v2/", true},
		{"* /v2/", "/v2/app", false},
		{"*", "", true},
		{"/v2/*/blobs/*", "/v2/team/app/blobs/sha256:0", true},
		{"/v2/*/blobs/*", "/v2/team/app/manifests/v1", false},
		{"/v2/*/tags/list", "/v2/team/app/tags/list", true},
		{"/v2/*/tags/list", "/v2/team/app/tags/list/more", false},
		{"/v2/*/*/v1", "/v2/app/manifests/v1", true},
		{"/v2/*/*/v1", "/v2/v1", false},
		{"/a*a", "/a", false},
		{"/a*bc*c", "/abc", false},
		{"*manifests*", "/v2/app/manifests/v1", true},
	} {
		if got := berthtest.On(c.pattern)(get(c.path)); got != c.want {
			t.Errorf("%q of GET %q: got %v", c.pattern, c.path, got)
		}
	}
}

func TestOnPanicsForWhatMeansNothing(t *testing.T) {
	for _, pattern := range []string{"", "GET", "v2/app", "GET  /v2/", "get /v2/", " /v2/"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%q is taken", pattern)
				}
			}()
			berthtest.On(pattern)
		}()
	}
}

func TestRequestsAreWrittenDown(t *testing.T) {
	registry := berthtest.New(t)
	image := registry.PushImage("app:v1", nil)
	if all := registry.Requests(); len(all) != 0 {
		t.Errorf("the test's own are among them: %+v", all)
	}
	ask(t.Context(), registry, http.MethodGet, "/v2/app/manifests/v1", "", "")
	ask(t.Context(), registry, http.MethodHead, "/v2/app/manifests/v2?a=b&a=c", "Bearer x", "")
	all := registry.Requests()
	if len(all) != 2 || all[0].Status != http.StatusOK || all[0].Path != "/v2/app/manifests/v1" || all[0].Authenticated {
		t.Fatalf("got %+v", all)
	}
	if got := all[1]; got.Status != http.StatusNotFound || got.Method != http.MethodHead || !slices.Equal(got.Query["a"], []string{"b", "c"}) || got.Header.Get("Authorization") != "Bearer x" {
		t.Errorf("got %+v", got)
	}
	if got := registry.Count(nil); got != 2 {
		t.Errorf("all are %d", got)
	}
	if got := registry.Count(func(r berthtest.Request) bool { return r.Status == http.StatusNotFound }); got != 1 {
		t.Errorf("%d were not found", got)
	}
	registry.Fail(nil, 0, http.StatusBadGateway)
	registry.Reset()
	if got := registry.Requests(); len(got) != 0 {
		t.Errorf("after Reset: %+v", got)
	}
	if got, err := client("", "").Resolve(t.Context(), registry.Host()+"/app:v1"); err != nil || got.Digest != image.Digest {
		t.Errorf("after Reset: %v, %v", got, err)
	}
}
