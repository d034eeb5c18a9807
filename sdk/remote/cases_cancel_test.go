package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
)

// All that is left running in a bubble when its test has ended fails the test: so none of these counts goroutines.

// pulling is a transport that calls something off with one of its requests: before it, or when its answer has begun.
type pulling struct {
	http.RoundTripper
	off    context.CancelFunc
	at     int32
	before bool
	count  atomic.Int32
}

func (p *pulling) RoundTrip(req *http.Request) (*http.Response, error) {
	mine := p.count.Add(1) == p.at
	if mine && p.before {
		p.off()
	}
	resp, err := p.RoundTripper.RoundTrip(req)
	if mine {
		p.off()
	}
	return resp, err
}

// fullRound does all that there is to do: a blob in chunks, a referrer with tags, its deletion, lists and downloads.
func fullRound(ctx context.Context, repo *remote.Repository, content []byte, desc v1.Descriptor) error {
	if err := wholeRound(ctx, repo, content, desc); err != nil {
		return err
	}
	subject := v1.Descriptor{Digest: emptyDigest, Size: int64(len(emptyIndex))}
	pushed, err := repo.PushManifest(ctx, referrer(subject, 1), &berth.PushOptions{Tags: []string{"a", "b"}})
	if err != nil {
		return err
	}
	for _, err := range repo.Referrers(ctx, emptyDigest, nil) {
		if err != nil {
			return err
		}
	}
	return repo.DeleteManifest(ctx, pushed.Digest)
}

// wantWhole fails where a tag leads to what is not all there.
func wantWhole(t *testing.T, s *stage) {
	t.Helper()
	for _, tag := range s.Tags("x") {
		if s.Manifest("x", tag) == nil {
			t.Errorf("%s leads to nothing", tag)
		}
	}
}

func TestCase23CalledOffWithAnyRequest(t *testing.T) {
	content, desc := randomBlob(t, 3<<19)
	for _, before := range []bool{true, false} {
		for at, over := 1, false; !over; at++ {
			t.Run(fmt.Sprint(at, before), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t, hostile.Options{Tokens: adasTokens(), NoReferrers: true, Faults: []*hostile.Fault{{On: moreThan(5 << 18), Status: 413}}})
					ctx, cancel := context.WithCancel(t.Context())
					p := &pulling{RoundTripper: s.network, off: cancel, at: int32(at), before: before}
					repo := s.openWith(t, &remote.Options{Transport: p})
					begin := time.Now()
					err := fullRound(ctx, repo, content, desc)
					over = p.count.Load() < int32(at)
					cancel()
					switch {
					case over && err != nil:
						t.Error(err)
					case err != nil && !errors.Is(err, context.Canceled):
						t.Errorf("called off: %v", err)
					case time.Since(begin) > 5*time.Second:
						t.Errorf("it took %v", time.Since(begin))
					}
					wantWhole(t, s)
					asked := s.Requests()
					if s.Uploads() > 0 && asked[len(asked)-1].Method != "POST" {
						t.Errorf("%d uploads are left after %s", s.Uploads(), asked[len(asked)-1])
					}
				})
			})
			if at > 200 {
				t.Fatal("it never ends")
			}
		}
	}
}

func TestCase23CalledOffWhileARegistryIsSilent(t *testing.T) {
	content, desc := randomBlob(t, 3<<19)
	for name, fault := range map[string]hostile.Fault{
		"a challenge":           {On: hostile.On("", "/v2/")},
		"a token":               {On: hostile.On("", "/token")},
		"the begin of a blob":   {On: hostile.On("POST", "")},
		"a blob":                {On: hostile.On("PUT", "/uploads/"), After: 1 << 20},
		"a manifest":            {On: hostile.On("PUT", "/manifests/"), After: 10},
		"a question":            {On: hostile.On("HEAD", "")},
		"a manifest, back":      {On: hostile.On("GET", "/manifests/"), After: 10},
		"a list":                {On: hostile.On("GET", "/tags/"), After: 3},
		"a blob, back":          {On: hostile.On("GET", "/blobs/sha256"), After: 1 << 20},
		"a list of referrers":   {On: hostile.On("PUT", "/manifests/sha256-")},
		"a deletion":            {On: hostile.On("DELETE", "")},
		"a pause":               {On: hostile.On("PUT", ""), Status: 429, RetryAfter: "60"},
		"one fault after other": {On: hostile.On("PUT", ""), Status: 502},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fault := fault
				fault.Stall = fault.Status == 0
				tokens := adasTokens()
				s := newStage(t, hostile.Options{Tokens: tokens, Realm: "https://auth.example/token", NoReferrers: true, Faults: []*hostile.Fault{&fault}})
				s.network.Handle("https://auth.example", tokens)
				if name == "a token" {
					tokens.Change(func(o *hostile.TokenOptions) { o.Faults = []*hostile.Fault{&fault} })
				}
				limit := 30 * time.Millisecond
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				begin := time.Now()
				err := fullRound(ctx, s.open(t, "x"), content, desc)
				if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > limit+2*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
				wantWhole(t, s)
			})
		})
	}
}

// lateFile cannot be called off while it is read, and notes what is done with it after its push has ended.
type lateFile struct {
	*bytes.Reader
	over *atomic.Bool
	late *atomic.Int32
}

func (f lateFile) Read(p []byte) (int, error) {
	time.Sleep(300 * time.Millisecond)
	if f.over.Load() {
		f.late.Add(1)
	}
	return f.Reader.Read(p)
}

func (f lateFile) Close() error { return nil }

// hasty is a transport that returns at the end of a context, whatever is still under way: an [http.RoundTripper] may.
type hasty struct{ http.RoundTripper }

func (h hasty) RoundTrip(req *http.Request) (*http.Response, error) {
	type result struct {
		resp *http.Response
		err  error
	}
	done := make(chan result, 1)
	go func() {
		resp, err := h.RoundTripper.RoundTrip(req)
		done <- result{resp, err}
	}()
	select {
	case r := <-done:
		return r.resp, r.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

func TestCase23NothingIsReadAfterAPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, desc := randomBlob(t, 5<<20)
		s := newStage(t, hostile.Options{})
		var over atomic.Bool
		var late atomic.Int32
		ctx, cancel := context.WithTimeout(t.Context(), 1*time.Second)
		defer cancel()
		opts := &remote.BlobOptions{Sent: func(int, int64) {
			if over.Load() {
				late.Add(1)
			}
		}}
		err := s.openWith(t, &remote.Options{Transport: hasty{s.network}}).PushBlob(ctx, desc, func() (io.ReadCloser, error) { return lateFile{bytes.NewReader(content), &over, &late}, nil }, opts)
		over.Store(true)
		time.Sleep(time.Minute)
		if !errors.Is(err, context.DeadlineExceeded) || late.Load() != 0 || s.Uploads() != 0 {
			t.Errorf("%d late, %d uploads left: %v", late.Load(), s.Uploads(), err)
		}
	})
}

// A download, a list and a wait for one's turn that are called off end at once.
func TestCase23CalledOffInTheMidst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, desc := randomBlob(t, 5<<20)
		s := newStage(t, hostile.Options{PageSize: 1})
		s.PutBlob("x", content)
		for _, tag := range []string{"v1", "v2", "v3"} {
			s.PutManifest("x", tag, v1.MediaTypeImageIndex, []byte(emptyIndex))
		}
		repo := s.open(t, "x")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		blob, err := repo.OpenBlob(ctx, desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		defer blob.Close()
		if _, err := io.CopyN(io.Discard, blob, 1<<20); err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, err := range repo.Tags(ctx, "") {
			cancel()
			if seen++; seen > 1 && !errors.Is(err, context.Canceled) || seen > 2 {
				t.Errorf("entry %d after the end: %v", seen, err)
			}
		}
		if _, err := io.Copy(io.Discard, blob); !errors.Is(err, context.Canceled) {
			t.Errorf("the download: %v", err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		silent := fake(func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		repo := repository(t, registryHost, &remote.Options{Transport: silent, Requests: 1})
		var all sync.WaitGroup
		for n, limit := range []time.Duration{20 * time.Second, time.Second, 2 * time.Second, time.Second} {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				begin := time.Now()
				_, err := repo.StatBlob(ctx, digest.FromString(fmt.Sprint(n)))
				if took := time.Since(begin); took != limit || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%d, after %v: %v", n, took, err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
	})
}
