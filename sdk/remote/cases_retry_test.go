package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
)

// Each answer is what the registry says before it says 200, or nothing if that does not come.
func TestCase18WhatIsAskedAgain(t *testing.T) {
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
					case req.Method == http.MethodHead && strings.Contains(req.URL.Path, "/manifests/"):
						return reply(404), nil // to who looks before the push whether the tag is new
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
func TestCase18AHostThatHasNeverAnsweredIsAskedOnce(t *testing.T) {
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
func TestCase18ARegistryThatHasNeverSaidAnything(t *testing.T) {
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

// A time that is set bounds all that is done for one request, whatever goes wrong.
func TestCase18PatienceBoundsTheWhole(t *testing.T) {
	for name, fails := range map[string]func() (*http.Response, error){
		"refused":     func() (*http.Response, error) { return reply(503), nil },
		"faults":      func() (*http.Response, error) { return reply(500), nil },
		"resets":      func() (*http.Response, error) { return nil, syscall.ECONNRESET },
		"slow resets": func() (*http.Response, error) { time.Sleep(20 * time.Second); return nil, syscall.ECONNRESET },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				known := false
				repo := repository(t, "registry.example", &remote.Options{Patience: time.Minute, Transport: fake(func(*http.Request) (*http.Response, error) {
					if !known {
						known = true
						return reply(200, "Content-Length", "7"), nil
					}
					return fails()
				})})
				for _, method := range []string{"GET", "GET", "PUT"} {
					begin := time.Now()
					first := !known
					err := ask(t.Context(), repo, method)
					if took := time.Since(begin); (err == nil) != first || took > 90*time.Second {
						t.Errorf("after %v: %v", took, err)
					}
				}
			})
		})
	}
}

// A request that has waited long for its turn has all its patience when it comes.
func TestCase18WaitingForOnesTurnIsNoFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := map[string]bool{}
		repo := repository(t, "registry.example", &remote.Options{RequestsPerSecond: 0.1, Requests: 1, Patience: 30 * time.Second, Transport: fake(func(req *http.Request) (*http.Response, error) {
			if key := req.URL.Path; !failed[key] {
				failed[key] = true
				return reply(502), nil
			}
			return reply(200, "Content-Length", "7"), nil
		})})
		var all sync.WaitGroup
		for n := range 30 {
			all.Go(func() {
				if _, err := repo.StatBlob(t.Context(), digest.FromString(fmt.Sprint(n))); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// What is sent a second time after it may have been carried out is answered as if it had been sent once.
func TestCase18ADeletionWhoseAnswerGotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{{On: hostile.On("DELETE", ""), Times: 1, Lose: true}}})
		d := s.PutBlob("x", []byte("layer"))
		repo := s.open(t, "x")
		if err := repo.DeleteBlob(t.Context(), d); err != nil || s.Blob("x", d) != nil {
			t.Error(err)
		}
		if err := repo.DeleteBlob(t.Context(), d); !errors.Is(err, berth.ErrBlobUnknown) {
			t.Errorf("a blob that is not there: %v", err)
		}
	})
}

// A condition that has been met once is not met again: who sends it twice is told that somebody else was there.
func TestCase18AConditionIsSentOnce(t *testing.T) {
	for _, fault := range []hostile.Fault{{Lose: true}, {Status: 503}, {Status: 502}} {
		synctest.Test(t, func(t *testing.T) {
			fault := fault
			fault.On, fault.Times = hostile.On("PUT", ""), 1
			s := newStage(t, hostile.Options{Faults: []*hostile.Fault{&fault}})
			repo := s.open(t, "x")
			if _, err := repo.Resolve(t.Context(), "v1"); !errors.Is(err, berth.ErrManifestUnknown) {
				t.Fatal(err)
			}
			if err := ask(t.Context(), repo, "IF"); err == nil || errors.Is(err, berth.ErrPreconditionFailed) || s.Count("PUT", "") != 1 {
				t.Errorf("after %d requests: %v", s.Count("PUT", ""), err)
			}
		})
	}
}

// What breaks off on its way here is fetched again, from where it was.
func TestCase18AnswersThatBreakOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, desc := randomBlob(t, 1<<20)
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{
			{On: hostile.On("GET", "/manifests/"), Times: 2, Cut: true, After: 5},
			{On: hostile.On("GET", "/tags/"), Times: 1, Cut: true, After: 5},
			{On: hostile.On("GET", "/blobs/"), Times: 1, Cut: true, After: 300_000},
			{On: hostile.On("GET", "/blobs/"), Times: 1, Stall: true, After: 300_000},
		}})
		s.PutBlob("x", content)
		s.PutManifest("x", "v1", v1.MediaTypeImageIndex, []byte(emptyIndex))
		repo := s.open(t, "x")
		if m, err := repo.FetchManifest(t.Context(), "v1", nil); err != nil || string(m.Raw) != emptyIndex {
			t.Errorf("a manifest: %q, %v", m.Raw, err)
		}
		for tag, err := range repo.Tags(t.Context(), "") {
			if err != nil || tag != "v1" {
				t.Errorf("a list: %q, %v", tag, err)
			}
		}
		blob, err := repo.OpenBlob(t.Context(), desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		if n, err := io.Copy(io.Discard, blob); err != nil || n != desc.Size {
			t.Errorf("%d bytes of a blob, %v", n, err)
		}
		var ranges []string
		for _, r := range s.Requests() {
			if r.Header.Get("Range") != "" {
				ranges = append(ranges, r.Header.Get("Range"))
			}
		}
		if want := []string{"bytes=300000-", "bytes=600000-"}; fmt.Sprint(ranges) != fmt.Sprint(want) {
			t.Errorf("asked for %q, want %q", ranges, want)
		}
	})
}

// What is slow is not silent: neither who reads slowly what has come, nor who has to wait for what is to be sent.
func TestCase18SlowIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, desc := randomBlob(t, 200<<10)
		s := newStage(t, hostile.Options{})
		repo := s.open(t, "x")
		slow := func() (io.ReadCloser, error) {
			return io.NopCloser(&slowly{Reader: bytes.NewReader(content), every: 64 << 10, wait: time.Minute}), nil
		}
		if err := repo.PushBlob(t.Context(), desc, slow, nil); err != nil || s.Count("PUT", "") != 1 {
			t.Errorf("after %d requests: %v", s.Count("PUT", ""), err)
		}
		blob, err := repo.OpenBlob(t.Context(), desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		time.Sleep(time.Minute)
		if _, err := io.Copy(io.Discard, &slowly{Reader: blob, every: 64 << 10, wait: time.Minute}); err != nil || s.Count("GET", "/blobs/") != 1 {
			t.Errorf("after %d requests: %v", s.Count("GET", "/blobs/"), err)
		}
	})
}

// slowly waits after so many bytes.
type slowly struct {
	io.Reader
	every, got int
	wait       time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.got >= s.every {
		s.got -= s.every
		time.Sleep(s.wait)
	}
	n, err := s.Reader.Read(p[:min(len(p), s.every)])
	s.got += n
	return n, err
}

// A registry that takes a connection and then does nothing is not waited for for ever, wherever it stops; and where it
// has only done so once, the work is done.
func TestCase18SilenceAtEachStage(t *testing.T) {
	content, desc := randomBlob(t, 5<<19)
	stages := map[string]hostile.Fault{
		"the begin of an upload":   {On: hostile.On("POST", "")},
		"the begin of its content": {On: hostile.On("PUT", "/uploads/")},
		"the midst of its content": {On: hostile.On("PUT", "/uploads/"), After: 1 << 20},
		"its manifest":             {On: hostile.On("PUT", "/manifests/")},
		"the midst of a manifest":  {On: hostile.On("PUT", "/manifests/"), After: 10},
		"a question for a tag":     {On: hostile.On("HEAD", "/manifests/")},
		"a manifest's header":      {On: hostile.On("GET", "/manifests/")},
		"a manifest":               {On: hostile.On("GET", "/manifests/"), After: 10},
		"a list":                   {On: hostile.On("GET", "/tags/"), After: 3},
		"a blob's header":          {On: hostile.On("GET", "/blobs/sha256")},
		"a blob":                   {On: hostile.On("GET", "/blobs/sha256"), After: 1 << 20},
	}
	for name, fault := range stages {
		for _, times := range []int{1, 0} {
			t.Run(fmt.Sprint(name, times), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					fault := fault
					fault.Stall, fault.Times = true, times
					s := newStage(t, hostile.Options{})
					repo := s.open(t, "x")
					if _, err := repo.Resolve(t.Context(), "v0"); !errors.Is(err, berth.ErrManifestUnknown) {
						t.Fatal(err)
					}
					s.Change(func(o *hostile.Options) { o.Faults = []*hostile.Fault{&fault} })
					begin := time.Now()
					err := wholeRound(t.Context(), repo, content, desc)
					goesOn := times == 1 || fault.After >= 1<<20 // for it comes further each time
					if took := time.Since(begin); (err == nil) != goesOn || took > 15*time.Minute {
						t.Errorf("after %v: %v", took, err)
					}
					if errors.Is(err, context.Canceled) {
						t.Errorf("nobody has cancelled anything: %v", err)
					}
				})
			})
		}
	}
}

// wholeRound pushes a blob and a manifest, and fetches them.
func wholeRound(ctx context.Context, repo *remote.Repository, content []byte, desc v1.Descriptor) error {
	if err := repo.PushBlob(ctx, desc, opener(content), nil); err != nil {
		return err
	}
	if _, err := repo.PushManifest(ctx, []byte(emptyIndex), &berth.PushOptions{Tags: []string{"v1"}}); err != nil {
		return err
	}
	if _, err := repo.Resolve(ctx, "v1"); err != nil {
		return err
	}
	if _, err := repo.FetchManifest(ctx, "v1", nil); err != nil {
		return err
	}
	for _, err := range repo.Tags(ctx, "") {
		if err != nil {
			return err
		}
	}
	blob, err := repo.OpenBlob(ctx, desc.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	_, err = io.Copy(io.Discard, blob)
	return err
}

// Of HTTP/2 a registry may end one stream alone.
func TestCase18AStreamThatIsReset(t *testing.T) {
	registry := hostile.NewRegistry(&hostile.Options{Faults: []*hostile.Fault{
		{On: hostile.On("PUT", "/uploads/"), Times: 2, Cut: true, After: 1 << 20},
		{On: hostile.On("HEAD", ""), Times: 1, Cut: true},
	}})
	srv := httptest.NewUnstartedServer(registry)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	repo := repository(t, "https://"+srv.Listener.Addr().String(), &remote.Options{Transport: srv.Client().Transport})
	content, desc := randomBlob(t, 4<<20)
	if err := repo.PushBlob(t.Context(), desc, opener(content), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := repo.StatBlob(t.Context(), desc.Digest); err != nil || registry.Count("POST", "") != 1 {
		t.Errorf("after %d uploads: %v", registry.Count("POST", ""), err)
	}
}
