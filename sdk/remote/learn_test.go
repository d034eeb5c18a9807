package remote_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/server"
)

// Whether a registry sets several tags by one request is found out once, however many images come at the same time.
func TestSeveralTagsAreTriedOnce(t *testing.T) {
	behind := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: serve(t, &server.Options{Hosts: []string{"127.0.0.1"}})})
	var tried, all atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Add(1)
		if r.URL.Query().Has("tag") {
			tried.Add(1)
			r.URL.RawQuery = ""
		}
		behind.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	repo := repository(t, srv.Listener.Addr().String(), nil)
	var pushes sync.WaitGroup
	const images = 16
	for range images {
		pushes.Go(func() {
			opts := &berth.PushOptions{MediaType: v1.MediaTypeImageIndex, Tags: []string{"v1", "latest"}}
			if _, err := repo.PushManifest(t.Context(), []byte(emptyIndex), opts); err != nil {
				t.Error(err)
			}
		})
	}
	pushes.Wait()
	if tried.Load() != 1 || all.Load() != 2*images+1 {
		t.Errorf("%d of %d requests tried it, want 1 of %d", tried.Load(), all.Load(), 2*images+1)
	}
}

// Who is called off while it is found out does not wait for that, and who was to find it out leaves that to the next.
func TestFindingOutIsHandedOn(t *testing.T) {
	asked, release := make(chan struct{}, 8), make(chan struct{}) // more than there are requests
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("OCI-Tag", "v1")
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(srv.Close)
	repo := repository(t, srv.Listener.Addr().String(), &remote.Options{Patience: -1})
	push := func(ctx context.Context) error {
		_, err := repo.PushManifest(ctx, []byte(emptyIndex), &berth.PushOptions{MediaType: v1.MediaTypeImageIndex, Tags: []string{"v1", "v2"}})
		return err
	}
	first, cancelFirst := context.WithCancel(t.Context())
	done := make(chan error, 2)
	go func() { done <- push(first) }()
	<-asked
	waiting, cancelWaiting := context.WithCancel(t.Context())
	cancelWaiting()
	if err := push(waiting); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits: %v", err)
	}
	go func() { done <- push(t.Context()) }()
	cancelFirst()
	<-asked // by the other one
	close(release)
	for range 2 {
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// A registry that cannot end an upload may have lost it by that: what is told is why.
func TestTheEndOfAnUploadThatFails(t *testing.T) {
	ends := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost, http.MethodPatch:
			w.Header().Set("Location", "/v2/x/blobs/uploads/1")
			w.Header().Set("Range", "0-2")
			w.WriteHeader(http.StatusAccepted)
		case http.MethodPut:
			if ends++; ends == 1 {
				answer(http.StatusInternalServerError, `{"errors":[{"code":"UNKNOWN","message":"no space left on device"}]}`)(w, r)
				return
			}
			answer(http.StatusNotFound, `{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"upload unknown"}]}`)(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	repo := repository(t, srv.Listener.Addr().String(), nil)
	up, err := repo.NewUpload(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	io.WriteString(up, "abc")
	if _, err := up.Commit(t.Context(), digest.FromString("abc")); err == nil || !strings.Contains(err.Error(), "no space left on device") || ends != 2 {
		t.Errorf("after %d requests: %v", ends, err)
	}
}
