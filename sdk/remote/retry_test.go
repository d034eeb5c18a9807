package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
)

// fake answers requests without a network, so that its time can be a bubble's.
type fake func(*http.Request) (*http.Response, error)

func (f fake) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		io.Copy(io.Discard, req.Body)
		req.Body.Close()
	}
	resp, err := f(req)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func reply(status int, header ...string) *http.Response {
	resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), ContentLength: 0}
	for i := 0; i < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp
}

// meter is a registry that answers so many requests in each second, and refuses the others.
type meter struct {
	mu      sync.Mutex // guards the fields below
	limit   int
	second  time.Time
	count   int
	taken   int
	refused int
}

func (m *meter) answer(*http.Request) (*http.Response, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.second) >= time.Second {
		m.second, m.count = now, 0
	}
	if m.count == m.limit {
		m.refused++
		return reply(http.StatusTooManyRequests, "Retry-After", "1"), nil
	}
	m.count++
	m.taken++
	return reply(http.StatusOK, "Content-Length", "7"), nil
}

func TestARegistryWithALimitIsAskedAsSlowlyAsItWants(t *testing.T) {
	for name, tt := range map[string]struct {
		perSecond float64
		refusals  int // at most
	}{
		"where it is told": {10, 0},
		"where it is not":  {0, 150},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &meter{limit: 10}
				repo := repository(t, "registry.example", &remote.Options{Transport: fake(m.answer), RequestsPerSecond: tt.perSecond})
				var all sync.WaitGroup
				for range 500 {
					all.Go(func() {
						if _, err := repo.StatBlob(t.Context(), emptyDigest); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if m.taken != 500 || m.refused > tt.refusals {
					t.Errorf("%d requests were answered and %d refused, want 500 and %d at most", m.taken, m.refused, tt.refusals)
				}
			})
		})
	}
}

// Each answer is what the registry says before it says 200, or nothing if that does not come.
func TestWhatIsAskedAgain(t *testing.T) {
	date := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for name, tt := range map[string]struct {
		first  func() (*http.Response, error)
		times  int
		waits  time.Duration // at least
		method string
		fails  error
	}{
		"429 with seconds":   {func() (*http.Response, error) { return reply(429, "Retry-After", "7"), nil }, 1, 7 * time.Second, "GET", nil},
		"429 with a date":    {func() (*http.Response, error) { return reply(429, "Retry-After", date(9*time.Second)), nil }, 1, 8 * time.Second, "GET", nil},
		"429 without a word": {func() (*http.Response, error) { return reply(429), nil }, 3, 0, "GET", nil},
		"503":                {func() (*http.Response, error) { return reply(503, "Retry-After", "3"), nil }, 2, 6 * time.Second, "GET", nil},
		"an hour":            {func() (*http.Response, error) { return reply(429, "Retry-After", "3600"), nil }, 1, 0, "GET", berth.ErrTooManyRequests},
		"500 thrice":         {func() (*http.Response, error) { return reply(500), nil }, 3, 0, "GET", nil},
		"500 for ever":       {func() (*http.Response, error) { return reply(500), nil }, 99, 0, "GET", &remote.Error{}},
		"429 on a push":      {func() (*http.Response, error) { return reply(429, "Retry-After", "1"), nil }, 1, time.Second, "PUT", nil},
		"502 on a push":      {func() (*http.Response, error) { return reply(502), nil }, 1, 0, "PUT", nil},
		"502 on a condition": {func() (*http.Response, error) { return reply(502), nil }, 1, 0, "IF", &remote.Error{}},
		"429 on a condition": {func() (*http.Response, error) { return reply(429, "Retry-After", "1"), nil }, 1, time.Second, "IF", nil},
		"a reset":            {func() (*http.Response, error) { return nil, syscall.ECONNRESET }, 5, 0, "GET", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				left, known := tt.times, false
				repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(req *http.Request) (*http.Response, error) {
					switch {
					case !known:
						known = true
					case left > 0:
						left--
						return tt.first()
					case req.Method == http.MethodPut:
						return reply(201), nil
					}
					return reply(200, "Content-Length", "7"), nil
				})})
				if _, err := repo.StatBlob(t.Context(), emptyDigest); err != nil { // so that the host is known
					t.Fatal(err)
				}
				begin := time.Now()
				err := ask(t.Context(), repo, tt.method)
				var refused *remote.Error
				switch {
				case tt.fails == nil && err != nil:
					t.Error(err)
				case errors.As(tt.fails, &refused) && !errors.As(err, &refused), refused == nil && !errors.Is(err, tt.fails):
					t.Errorf("got %v, want %v", err, tt.fails)
				}
				if took := time.Since(begin); took < tt.waits || took > 2*time.Minute {
					t.Errorf("it took %v, want %v", took, tt.waits)
				}
			})
		})
	}
}

func ask(ctx context.Context, repo *remote.Repository, method string) error {
	switch method {
	case "PUT":
		_, err := repo.PushManifest(ctx, []byte(emptyIndex), &berth.PushOptions{Tags: []string{"v1"}})
		return err
	case "IF":
		_, err := repo.PushManifest(ctx, []byte(emptyIndex), &berth.PushOptions{Tags: []string{"v1"}, IfNoneMatch: true})
		return err
	}
	_, err := repo.StatBlob(ctx, emptyDigest)
	return err
}

// A name that is mistyped is not waited for.
func TestAHostThatHasNeverAnsweredIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(*http.Request) (*http.Response, error) {
			asked++
			return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
		})})
		_, err := repo.Resolve(t.Context(), "v1")
		var network *remote.NetworkError
		if !errors.As(err, &network) || network.Host != "registry.example" || asked != 1 {
			t.Errorf("asked %d times, got %v", asked, err)
		}
	})
}

// A registry that takes a connection and says nothing is given up, and a request that is cancelled ends at once.
func TestASilentRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := fake(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		repo := repository(t, "registry.example", &remote.Options{Transport: silent})
		begin := time.Now()
		_, err := repo.Resolve(t.Context(), "v1")
		if err == nil || !strings.Contains(err.Error(), "does not answer") || time.Since(begin) > time.Minute {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if _, err := repo.Resolve(ctx, "v1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestRateLimitsAreShown(t *testing.T) {
	registry, err := remote.New("registry.example", &remote.Options{Transport: fake(func(*http.Request) (*http.Response, error) {
		return reply(200, "RateLimit-Limit", "100;w=21600", "RateLimit-Remaining", "76;w=21600"), nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	if err := registry.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := registry.RateLimit(), (remote.RateLimit{Limit: 100, Remaining: 76, Window: 6 * time.Hour}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
