package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestTagsMoveUnderConditions(t *testing.T) {
	f := serve(t, nil)
	at, d, other := "/v2/x/manifests/v1", string(digest.FromString(emptyIndex)), string(digest.FromString("other"))
	absent := f.body(f.want(f.do("GET", at, ""), http.StatusNotFound))
	for _, tt := range []struct {
		name, method, header, value string
		before, status              int // before: the tag is there, 200, or not, 404
	}{
		{"match nothing", "PUT", "If-Match", `"` + d + `"`, 404, 412},
		{"match anything of nothing", "PUT", "If-Match", "*", 404, 412},
		{"new", "PUT", "If-None-Match", "*", 404, 201},
		{"new but there", "PUT", "If-None-Match", "*", 200, 412},
		{"match", "PUT", "If-Match", `"` + d + `"`, 200, 201},
		{"match without quotes", "PUT", "If-Match", d, 200, 201},
		{"match another", "PUT", "If-Match", `"` + other + `"`, 200, 412},
		{"match one of a list", "PUT", "If-Match", `"` + other + `", "` + d + `"`, 200, 201},
		{"match none of a list", "PUT", "If-Match", `"` + other + `", "x"`, 200, 412},
		{"match anything", "PUT", "If-Match", "*", 200, 201},
		{"a weak tag never matches", "PUT", "If-Match", `W/"` + d + `"`, 200, 412},
		{"anything but this", "PUT", "If-None-Match", `"` + d + `"`, 200, 412},
		{"anything but another", "PUT", "If-None-Match", `"` + other + `"`, 200, 201},
		{"anything but this, of nothing", "PUT", "If-None-Match", `"` + d + `"`, 404, 201},
		{"remove another", "DELETE", "If-Match", `"` + other + `"`, 200, 412},
		{"remove one of a list", "DELETE", "If-Match", `"x", "` + d + `"`, 200, 202},
		{"remove anything", "DELETE", "If-Match", "*", 200, 202},
		{"remove anything of nothing", "DELETE", "If-Match", "*", 404, 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.T = t
			if tt.before == http.StatusOK {
				f.tag("x", "v1")
			} else {
				f.do("DELETE", at, "")
			}
			resp := f.want(f.do(tt.method, at, emptyIndex, tt.header, tt.value), tt.status)
			if tt.status == http.StatusPreconditionFailed && f.codes(resp) != "PRECONDITION_FAILED" {
				t.Error("another code")
			}
		})
	}
	if !strings.Contains(absent, "MANIFEST_UNKNOWN") {
		t.Error(absent)
	}
}

// Of many who move a tag from the same place one does, whatever form the condition has.
func TestOneOfManyMovesATag(t *testing.T) {
	for _, form := range []string{`"%s"`, `"x", "%s"`} {
		f := serve(t, nil)
		f.tag("x", "v1")
		condition := fmt.Sprintf(form, digest.FromString(emptyIndex))
		var moved atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				raw := strings.Replace(emptyIndex, "[]", "[]"+strings.Repeat(" ", i+1), 1)
				if resp := f.do("PUT", "/v2/x/manifests/v1", raw, "If-Match", condition); resp.StatusCode == http.StatusCreated {
					moved.Add(1)
				} else if resp.StatusCode != http.StatusPreconditionFailed {
					t.Errorf("status %d", resp.StatusCode)
				}
			})
		}
		wg.Wait()
		if moved.Load() != 1 {
			t.Errorf("%s: %d moved it", form, moved.Load())
		}
	}
}

func TestConditionsOfSeveralTags(t *testing.T) {
	f := serve(t, nil)
	f.tag("x", "a", "b")
	d := string(digest.FromString(emptyIndex))
	at := "/v2/x/manifests/" + d + "?tag=a&tag=b"
	f.want(f.do("PUT", at, emptyIndex, "If-Match", "*"), http.StatusCreated)
	moved := strings.Replace(emptyIndex, "[]", "[ ]", 1)
	f.want(f.put("x", "b", ociIndex, moved), http.StatusCreated)
	for _, condition := range []string{"*", `"` + d + `"`, `"x", "` + d + `"`} {
		f.want(f.do("PUT", at, emptyIndex, "If-Match", condition), http.StatusPreconditionFailed)
	}
}
