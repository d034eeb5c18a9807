package remote

import (
	"errors"
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
		if pages.Add(1) < 9 {
			w.Header().Set("Link", `</v2/_catalog?last=a>; rel="next"`)
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
