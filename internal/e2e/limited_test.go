//go:build linux

package e2e

import (
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	syncLimit = flag.Int("sync-limit", 100, "how many requests a registry takes in a second that many tags are synced to")
	syncTags  = flag.Int("sync-tags", 500, "how many tags are synced to it")
)

// limited is a registry that takes so many requests in any second, and refuses those that are more.
type limited struct {
	*httputil.ReverseProxy
	registry string

	mu     sync.Mutex // guards the fields below
	recent []time.Time
	asked  counts
}

// counts are of requests.
type counts struct {
	all, refused int
	most         int // in any second
}

// limitedRegistry returns one with its host.
func (s *shell) limitedRegistry() (*limited, string) {
	s.Helper()
	l := &limited{registry: "http://" + s.registry("")}
	to, err := url.Parse(l.registry)
	s.check(err)
	l.ReverseProxy = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host // the addresses of uploads are to lead here
	}}
	server := httptest.NewServer(l)
	s.Cleanup(server.Close)
	return l, strings.TrimPrefix(server.URL, "http://")
}

func (l *limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.takes(time.Now()) {
		l.ReverseProxy.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Retry-After", "1")
	http.Error(w, "too many requests", http.StatusTooManyRequests)
}

// takes counts a request, and reports whether it is within the limit.
func (l *limited) takes(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.recent = append(l.recent, now)
	for now.Sub(l.recent[0]) >= time.Second {
		l.recent = l.recent[1:]
	}
	l.asked.all++
	l.asked.most = max(l.asked.most, len(l.recent))
	if len(l.recent) > *syncLimit {
		l.asked.refused++
		return false
	}
	return true
}

func (l *limited) told() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

// many makes a layout with many tags of a few images, all in one repository.
func (s *shell) many() map[string]digest.Digest {
	s.Helper()
	const images = 10
	made, all := s.path("made"), map[string]digest.Digest{}
	base := s.putLayer(made, layerSize)
	for i := range images {
		root, tags := s.imageWith(made, "made", base, s.putLayer(made, layerSize)).root, []string{}
		for n := i; n < *syncTags; n += images {
			tags = append(tags, fmt.Sprint("v", n))
			all[tags[len(tags)-1]] = root
		}
		s.must("berth", "--layout", s.path("layout"), "push", "oci:"+made, "app/many:"+strings.Join(tags, ","))
	}
	return all
}

// syncMany brings many tags to such a registry, twice, and returns what was asked of it.
func (s *shell) syncMany(flags ...string) counts {
	s.Helper()
	tags := s.many()
	l, host := s.limitedRegistry()
	sync := append([]string{"--layout", s.path("layout"), "sync", "--to", host, "app/many"}, flags...)
	most := runTimeout + time.Duration(4*len(tags) / *syncLimit)*time.Second
	for _, what := range []string{"synced", "unchanged"} {
		out := s.start("berth", sync...).wait(most)
		if n := strings.Count(out.stdout, "  "+what); out.code != 0 || n != len(tags) {
			s.Errorf("exit code %d, %d tags are %s: %s", out.code, n, what, out.stderr)
		}
		s.Logf("%s: %+v so far", what, l.told())
	}
	repository := l.registry + "/v2/app/many"
	for tag, root := range tags {
		if got := digest.FromBytes(s.fetch(repository + "/manifests/" + tag)); got != root {
			s.Errorf("%s is %s there, want %s", tag, got, root)
		}
	}
	return l.told()
}

// A registry that takes so many requests in a second gets many tags. It refuses nothing to who is told the limit.
func TestManyTagsForARegistryWithALimit(t *testing.T) {
	t.Run("told", func(t *testing.T) {
		t.Parallel()
		told := fmt.Sprint(float64(*syncLimit) * 3 / 4) // nobody can tell when a request arrives that has begun
		if asked := newShell(t).syncMany("--requests-per-second", told); asked.refused > 0 {
			t.Errorf("there were refusals: %+v", asked)
		}
	})
	t.Run("not told", func(t *testing.T) {
		t.Parallel()
		if asked := newShell(t).syncMany(); asked.refused == 0 {
			t.Errorf("there was no refusal, and this shows nothing: %+v", asked)
		}
	})
}
