package remote

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/berthoci/berth"
)

// Row 26: what has no end is not kept.
func TestCase26ACatalogWithoutEnd(t *testing.T) {
	var pages atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page := pages.Add(1); page < 9 {
			w.Header().Set("Link", fmt.Sprintf(`</v2/_catalog?last=%d>; rel="next"`, page))
		}
		io.WriteString(w, `{"repositories":["`+strings.Repeat("a", 40)+`"]}`)
	}))
	defer srv.Close()
	registry, err := New(srv.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if names, err := registry.catalog(t.Context(), 100); !errors.Is(err, berth.ErrSizeInvalid) || pages.Load() != 3 {
		t.Errorf("after %d pages: %d names, %v", pages.Load(), len(names), err)
	}
	pages.Store(0)
	if names, err := registry.catalog(t.Context(), 1000); err != nil || len(names) != 1 {
		t.Errorf("%d names, %v", len(names), err)
	}
}

// Row 26: a list whose pages lead back to one that was there.
func TestCase26AListThatGoesRound(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", fmt.Sprintf(`<%s?last=a>; rel="next"`, r.URL.Path))
		io.WriteString(w, `{"tags":["a"]}`)
	}))
	defer srv.Close()
	registry, err := New(srv.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	repo, err := registry.Open("app")
	if err != nil {
		t.Fatal(err)
	}
	tags := 0
	for _, err = range repo.Tags(t.Context(), "") {
		if tags++; err != nil || tags == 10 {
			break
		}
	}
	if !errors.Is(err, berth.ErrSizeInvalid) {
		t.Errorf("after %d tags: %v", tags, err)
	}
}
