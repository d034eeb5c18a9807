package remote_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/server"
)

// old is a registry that has not got the API for referrers, and that may take no notice of conditions.
func old(t *testing.T, conditions bool) (host string) {
	t.Helper()
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: serve(t, &server.Options{Hosts: []string{"127.0.0.1"}})})
	behind.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Del("OCI-Subject")
		return nil
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return
		}
		if !conditions {
			r.Header.Del("If-Match")
			r.Header.Del("If-None-Match")
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func referrer(subject v1.Descriptor, n int) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"x/y","manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"n":"%d"}}`,
		v1.MediaTypeImageIndex, v1.MediaTypeImageIndex, subject.Digest, subject.Size, n)
}

// Two machines at once lose nothing of each other.
func TestReferrersOfManyWriters(t *testing.T) {
	const each = 100
	for name, conditions := range map[string]bool{"If-Match is honoured": true, "and is not": false} {
		t.Run(name, func(t *testing.T) {
			host := old(t, conditions)
			subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
			var machines sync.WaitGroup
			for machine := range 2 {
				repo := repository(t, host, nil)
				for n := range each {
					machines.Go(func() {
						if _, err := repo.PushManifest(t.Context(), referrer(subject, machine*each+n), nil); err != nil {
							t.Error(err)
						}
					})
				}
			}
			machines.Wait()
			if got := len(listed(t, repository(t, host, nil), subject.Digest)); got != 2*each {
				t.Errorf("%d referrers are listed, want %d", got, 2*each)
			}
		})
	}
}

func listed(t *testing.T, repo *remote.Repository, subject digest.Digest) (all []v1.Descriptor) {
	t.Helper()
	for desc, err := range repo.Referrers(t.Context(), subject, nil) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, desc)
	}
	return all
}

func TestAReferrerThatIsDeletedIsNotListed(t *testing.T) {
	repo := repository(t, old(t, true), nil)
	subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
	var pushed []v1.Descriptor
	for n := range 2 {
		desc, err := repo.PushManifest(t.Context(), referrer(subject, n), nil)
		if err != nil {
			t.Fatal(err)
		}
		pushed = append(pushed, desc)
	}
	if err := repo.DeleteManifest(t.Context(), pushed[0].Digest); err != nil {
		t.Fatal(err)
	}
	all := listed(t, repo, subject.Digest)
	if len(all) != 1 || all[0].Digest != pushed[1].Digest || all[0].ArtifactType != "x/y" || all[0].Annotations["n"] != "1" {
		t.Errorf("got %+v, want %s", all, pushed[1].Digest)
	}
}

// A registry that has the API keeps the lists by itself.
func TestARegistryWithTheAPIHasNoListsOfOurs(t *testing.T) {
	repo := repository(t, serve(t, nil), nil)
	subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
	if _, err := repo.PushManifest(t.Context(), referrer(subject, 1), &berth.PushOptions{Tags: []string{"v1"}}); err != nil {
		t.Fatal(err)
	}
	for tag, err := range repo.Tags(t.Context(), "") {
		if err != nil || tag != "v1" {
			t.Errorf("there is a tag %s, %v", tag, err)
		}
	}
	if got := listed(t, repo, subject.Digest); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
