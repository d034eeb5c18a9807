package remote_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
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

func TestCase16ALimitOfRequestsPerSecond(t *testing.T) {
	for name, tt := range map[string]struct {
		perSecond float64
		refusals  int // at most
	}{
		"where it is told": {10, 0},
		"where it is not":  {0, 60},
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

// What refusals have led to does not outlast them: a registry that was out of breath once is soon asked as fast as before.
func TestCase16APaceThatWasLearntIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := true
		repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(*http.Request) (*http.Response, error) {
			if first {
				first = false
				return reply(503, "Retry-After", "1"), nil
			}
			return reply(200, "Content-Length", "7"), nil
		})})
		begin := time.Now()
		for range 1000 {
			if _, err := repo.StatBlob(t.Context(), emptyDigest); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("1000 requests took %v", took)
		}
	})
}

// The pause of a CDN holds back all that is fetched there, and nothing else.
func TestCase16APauseIsAHostsAndForAllRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{BlobsAt: "https://cdn.example", Faults: []*hostile.Fault{
			{On: hostile.On("GET", "/blob/"), Times: 1, Status: 429, RetryAfter: "20", Body: "slow down"},
		}})
		s.PutManifest("x", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
		d := s.PutBlob("x", []byte("layer"))
		repo := s.open(t, "x")
		begin := time.Now()
		var all sync.WaitGroup
		download := func() {
			blob, err := repo.OpenBlob(t.Context(), d)
			if err != nil {
				t.Error(err)
				return
			}
			defer blob.Close()
			if took := time.Since(begin); took < 20*time.Second || took > 25*time.Second {
				t.Errorf("a download began after %v", took)
			}
		}
		all.Go(download)
		synctest.Wait()
		all.Go(download)
		if _, err := repo.Resolve(t.Context(), "v1"); err != nil || time.Since(begin) > time.Second {
			t.Errorf("another host was asked after %v: %v", time.Since(begin), err)
		}
		all.Wait()
		if n := s.storage.Count("GET", "/blob/"); n != 3 {
			t.Errorf("the CDN was asked %d times, want 3", n)
		}
	})
}

func TestCase16WhatAPauseMayLookLike(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for name, tt := range map[string]struct {
		header func() []string
		least  time.Duration
		most   time.Duration
	}{
		"seconds":                    {func() []string { return []string{"Retry-After", "7"} }, 7 * time.Second, 7 * time.Second},
		"a part of a second":         {func() []string { return []string{"Retry-After", "0.5"} }, time.Second / 2, time.Second / 2},
		"a date":                     {func() []string { return []string{"Retry-After", at(9 * time.Second)} }, 8 * time.Second, 9 * time.Second},
		"a date by another clock":    {func() []string { return []string{"Date", at(-time.Hour), "Retry-After", at(9*time.Second - time.Hour)} }, 8 * time.Second, 9 * time.Second},
		"a date that is over":        {func() []string { return []string{"Retry-After", at(-time.Hour)} }, 0, time.Second},
		"no number and no date":      {func() []string { return []string{"Retry-After", "soon"} }, 0, time.Second},
		"less than nothing":          {func() []string { return []string{"Retry-After", "-5"} }, 0, time.Second},
		"more than there are digits": {func() []string { return []string{"Retry-After", strings.Repeat("9", 400)} }, -1, 0},
		"no number at all":           {func() []string { return []string{"Retry-After", "NaN"} }, 0, time.Second},
		"a day":                      {func() []string { return []string{"Retry-After", "86400"} }, -1, 0},
		"a date in ten years":        {func() []string { return []string{"Retry-After", at(87600 * time.Hour)} }, -1, 0},
	} {
		for _, status := range []int{429, 503} {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					asked := 0
					repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(*http.Request) (*http.Response, error) {
						if asked++; asked == 1 {
							return reply(status, tt.header()...), nil
						}
						return reply(200, "Content-Length", "7"), nil
					})})
					begin := time.Now()
					_, err := repo.StatBlob(t.Context(), emptyDigest)
					took := time.Since(begin)
					if tt.least < 0 && (err == nil || took > 0 || asked != 1) || tt.least >= 0 && (err != nil || took < tt.least || took > tt.most) {
						t.Errorf("asked %d times in %v: %v", asked, took, err)
					}
				})
			})
		}
	}
}

// A host that wants to be left alone for longer than anybody waits is left alone: all fail at once, with what it has said, until
// some time has passed.
func TestCase16AHostThatWantsToBeLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(*http.Request) (*http.Response, error) {
			asked++
			return reply(429, "Retry-After", "3600"), nil
		})})
		begin := time.Now()
		for range 100 {
			if _, err := repo.StatBlob(t.Context(), emptyDigest); !errors.Is(err, berth.ErrTooManyRequests) || !strings.Contains(err.Error(), "it may be asked again in") {
				t.Fatal(err)
			}
		}
		if asked != 1 || time.Since(begin) > time.Second {
			t.Errorf("asked %d times in %v", asked, time.Since(begin))
		}
		time.Sleep(11 * time.Minute)
		if repo.StatBlob(t.Context(), emptyDigest); asked != 2 {
			t.Errorf("asked %d times in all, want 2", asked)
		}
	})
}

// Many that wait for a host which refuses them all do not wait one after the other.
func TestCase16AHostThatRefusesEverything(t *testing.T) {
	for _, header := range [][]string{{}, {"Retry-After", "60"}, {"Retry-After", "1"}} {
		t.Run(fmt.Sprint(header), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				repo := repository(t, "registry.example", &remote.Options{Transport: fake(func(*http.Request) (*http.Response, error) {
					return reply(429, header...), nil
				})})
				begin := time.Now()
				var all sync.WaitGroup
				for range 30 {
					all.Go(func() {
						if _, err := repo.StatBlob(t.Context(), emptyDigest); !errors.Is(err, berth.ErrTooManyRequests) {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if took := time.Since(begin); took > 3*time.Minute {
					t.Errorf("all have failed after %v", took)
				}
			})
		})
	}
}

func TestCase16RateLimitsAreShown(t *testing.T) {
	want := remote.RateLimit{Limit: 100, Remaining: 76, Window: 6 * time.Hour}
	for _, patience := range []time.Duration{0, -1} {
		s := newStage(t, hostile.Options{Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"76;w=21600"}}})
		registry, err := remote.New(registryHost, &remote.Options{Transport: s.network, Patience: patience})
		if err != nil {
			t.Fatal(err)
		}
		if err := registry.Ping(t.Context()); err != nil || registry.RateLimit() != want {
			t.Errorf("got %+v, %v, want %+v", registry.RateLimit(), err, want)
		}
	}
}

// Docker Hub counts for six hours, and says so in plain text. Nobody waits for that.
func TestCase16ALimitThatIsSpent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{
			Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"0;w=21600"}},
			Faults: []*hostile.Fault{{On: hostile.On("GET", "/manifests/"), Status: 429, Body: "You have reached your pull rate limit\nand more"}},
		})
		s.PutManifest("x", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
		repo := s.open(t, "x")
		begin := time.Now()
		_, err := repo.FetchManifest(t.Context(), "v1", nil)
		for _, says := range []string{"You have reached your pull rate limit", "0 of 100 requests remain in 6h0m0s"} {
			if !errors.Is(err, berth.ErrTooManyRequests) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v does not say %q", err, says)
			}
		}
		if _, err := repo.Resolve(t.Context(), "v1"); err != nil || time.Since(begin) > 2*time.Second {
			t.Errorf("what is not limited was answered after %v: %v", time.Since(begin), err)
		}
	})
}
