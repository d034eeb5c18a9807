package remote_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
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
func TestCase21ManyWriters(t *testing.T) {
	const each = 25
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

func TestCase21AReferrerThatIsDeletedIsNotListed(t *testing.T) {
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
func TestCase21ARegistryWithTheAPIHasNoListsOfOurs(t *testing.T) {
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

// oldStage is a stage whose registry has not got the API for referrers.
func oldStage(t *testing.T, ignores bool) *stage {
	return newStage(t, hostile.Options{NoReferrers: true, Sparse: true, IgnoreConditions: ignores})
}

// third writes the list as somebody does who adds one to what he has read: raw, or nothing where that is empty.
func (s *stage) third(subject digest.Digest, raw []byte, n int) {
	list := v1.Index{MediaType: v1.MediaTypeImageIndex}
	list.SchemaVersion = 2
	json.Unmarshal(raw, &list)
	list.Manifests = append(list.Manifests, v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint("theirs", n)), Size: 6})
	raw, _ = json.Marshal(list)
	s.PutManifest("x", "sha256-"+subject.Encoded(), v1.MediaTypeImageIndex, raw)
}

// Somebody overwrites the list between our reading and our writing, or just after it.
func TestCase21AThirdWriterAtTheWorstMoment(t *testing.T) {
	subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
	tag := "/manifests/sha256-" + subject.Digest.Encoded()
	for _, ignores := range []bool{false, true} {
		for _, method := range []string{"GET", "PUT"} {
			for moment := int32(1); moment <= 4; moment++ {
				t.Run(fmt.Sprintf("conditions ignored %v, before %s %d", ignores, method, moment), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						s := oldStage(t, ignores)
						var seen atomic.Int32
						var over atomic.Bool
						s.Change(func(o *hostile.Options) {
							o.Before = func(r *http.Request) {
								if !over.Load() && hostile.On(method, tag)(r) && seen.Add(1) == moment {
									s.third(subject.Digest, nil, 1)
								}
							}
						})
						repo := s.open(t, "x")
						desc, err := repo.PushManifest(t.Context(), referrer(subject, 1), nil)
						over.Store(true)
						if err != nil {
							t.Fatal(err)
						}
						all := listed(t, repo, subject.Digest)
						ours := slices.ContainsFunc(all, func(d v1.Descriptor) bool { return d.Digest == desc.Digest })
						if !ours || !ignores && seen.Load() >= moment && len(all) != 2 {
							t.Errorf("%d are listed, ours among them: %v", len(all), ours)
						}
					})
				})
			}
		}
	}
}

// A hundred of each of two machines, and a third one, which does as the registry lets it: where conditions are ignored, it
// overwrites what came a moment ago.
func TestCase21TwoWritersAndAThird(t *testing.T) {
	for _, ignores := range []bool{false, true} {
		t.Run(fmt.Sprint("conditions ignored ", ignores), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const each = 100
				subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
				tag := "sha256-" + subject.Digest.Encoded()
				s := oldStage(t, ignores)
				var mu sync.Mutex
				var stale []byte
				var at time.Time
				writes := 0
				s.Change(func(o *hostile.Options) {
					o.Before = func(r *http.Request) {
						if !hostile.On("PUT", tag)(r) {
							return
						}
						mu.Lock()
						defer mu.Unlock()
						read, age := stale, time.Since(at)
						stale, at = s.Manifest("x", tag), time.Now()
						switch writes++; {
						case !ignores && writes%2 == 0 && writes < 20:
							s.third(subject.Digest, stale, writes)
						case ignores && age < 50*time.Millisecond && writes < 20:
							s.third(subject.Digest, read, writes)
						}
					}
				})
				var machines sync.WaitGroup
				for machine := range 2 {
					repo := s.open(t, "x")
					for n := range each {
						machines.Go(func() {
							if _, err := repo.PushManifest(t.Context(), referrer(subject, machine*each+n), nil); err != nil {
								t.Error(err)
							}
						})
					}
				}
				machines.Wait()
				ours, theirs := 0, 0
				for _, desc := range listed(t, s.open(t, "x"), subject.Digest) {
					if desc.ArtifactType == "x/y" {
						ours++
					} else {
						theirs++
					}
				}
				if ours != 2*each || !ignores && theirs == 0 {
					t.Errorf("%d of ours are listed, want %d; %d of theirs", ours, 2*each, theirs)
				}
			})
		})
	}
}

// Who writes slowly does not overwrite what somebody else has written, and has seen to rest, in the meantime.
func TestCase21ASlowWriterAndAFastOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
		s := oldStage(t, true)
		slow, fast := s.open(t, "x"), s.open(t, "x")
		for n, repo := range []*remote.Repository{slow, fast} { // they learn what the registry is
			if _, err := repo.PushManifest(t.Context(), referrer(subject, n), nil); err != nil {
				t.Fatal(err)
			}
		}
		var writes atomic.Int32
		s.Change(func(o *hostile.Options) {
			o.Before = func(r *http.Request) {
				if hostile.On("PUT", "/manifests/sha256-"+subject.Digest.Encoded())(r) && writes.Add(1) == 1 {
					time.Sleep(2 * time.Second)
				}
			}
		})
		var both sync.WaitGroup
		for n, repo := range []*remote.Repository{slow, fast} {
			both.Go(func() {
				time.Sleep(time.Duration(n) * 100 * time.Millisecond)
				if _, err := repo.PushManifest(t.Context(), referrer(subject, 2+n), nil); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		if got := len(listed(t, fast, subject.Digest)); got != 4 || writes.Load() < 3 {
			t.Errorf("%d are listed after %d writings, want 4", got, writes.Load())
		}
	})
}

// What is taken out of a list is still there while that is written.
func TestCase21ASlowDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
		s := oldStage(t, true)
		repo := s.open(t, "x")
		var last v1.Descriptor
		for n := range 2 {
			var err error
			if last, err = repo.PushManifest(t.Context(), referrer(subject, n), nil); err != nil {
				t.Fatal(err)
			}
		}
		s.Change(func(o *hostile.Options) {
			o.Before = func(r *http.Request) {
				if hostile.On("PUT", "/manifests/sha256-"+subject.Digest.Encoded())(r) {
					time.Sleep(200 * time.Millisecond)
				}
			}
		})
		if err := repo.DeleteManifest(t.Context(), last.Digest); err != nil {
			t.Error(err)
		}
		if got := listed(t, s.open(t, "x"), subject.Digest); len(got) != 1 || got[0].Digest == last.Digest {
			t.Errorf("got %+v", got)
		}
	})
}

// Those that come and those that go at the same time.
func TestCase21DeletionsAmongPushes(t *testing.T) {
	for _, ignores := range []bool{false, true} {
		t.Run(fmt.Sprint("conditions ignored ", ignores), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const each = 20
				subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
				s := oldStage(t, ignores)
				var old []v1.Descriptor
				for n := range each {
					desc, err := s.open(t, "x").PushManifest(t.Context(), referrer(subject, n), nil)
					if err != nil {
						t.Fatal(err)
					}
					old = append(old, desc)
				}
				var all sync.WaitGroup
				pusher, deleter := s.open(t, "x"), s.open(t, "x")
				for n := range each {
					all.Go(func() {
						if _, err := pusher.PushManifest(t.Context(), referrer(subject, each+n), nil); err != nil {
							t.Error(err)
						}
					})
					all.Go(func() {
						if err := deleter.DeleteManifest(t.Context(), old[n].Digest); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				left := listed(t, s.open(t, "x"), subject.Digest)
				for _, desc := range left {
					if slices.ContainsFunc(old, func(d v1.Descriptor) bool { return d.Digest == desc.Digest }) {
						t.Errorf("%s is gone, and listed", desc.Digest)
					}
				}
				if len(left) != each {
					t.Errorf("%d are listed, want %d", len(left), each)
				}
			})
		})
	}
}

// A registry that has a bad moment when it is asked what it can has not said anything about it.
func TestCase21WhatIsLearntFromFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
		s := oldStage(t, false)
		s.Change(func(o *hostile.Options) {
			o.Faults = []*hostile.Fault{{On: hostile.On("GET", "/referrers/"), Times: 4, Status: 500}, {On: hostile.On("PUT", "/sha256-"), Times: 1, Status: 500}}
		})
		repo := s.open(t, "x")
		for n := range 2 {
			if _, err := repo.PushManifest(t.Context(), referrer(subject, n), nil); err == nil {
				t.Errorf("%d: it was not listed, and nobody has said so", n)
			}
		}
		if _, err := repo.PushManifest(t.Context(), referrer(subject, 2), nil); err != nil {
			t.Fatal(err)
		}
		s.third(subject.Digest, nil, 1)
		before := s.Count("GET", "/manifests/sha256-")
		if _, err := repo.PushManifest(t.Context(), referrer(subject, 3), nil); err != nil {
			t.Fatal(err)
		}
		if n := s.Count("GET", "/manifests/sha256-") - before; n != 1 {
			t.Errorf("the list was read %d times, as if conditions were ignored", n)
		}
	})
}

// Who waits for a list does not lose by it that the one who writes it is called off: the first is slow, the second is called off
// while it writes its own and the third's, and the third has the turn then.
func TestCase21AWriterThatIsCalledOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		subject := v1.Descriptor{Digest: digest.FromString("subject"), Size: 7}
		s := oldStage(t, false)
		repo := s.open(t, "x")
		if _, err := repo.PushManifest(t.Context(), referrer(subject, 0), nil); err != nil {
			t.Fatal(err)
		}
		var writes atomic.Int32
		s.Change(func(o *hostile.Options) {
			o.Before = func(r *http.Request) {
				if hostile.On("PUT", "/manifests/sha256-"+subject.Digest.Encoded())(r) && writes.Add(1) == 1 {
					time.Sleep(time.Second)
					s.Change(func(o *hostile.Options) {
						o.Faults = []*hostile.Fault{{On: hostile.On("PUT", "/manifests/sha256-"+subject.Digest.Encoded()), Times: 1, Stall: true}}
					})
				}
			}
		})
		called, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		var all sync.WaitGroup
		begin := time.Now()
		for n, ctx := range []context.Context{t.Context(), called, t.Context()} {
			all.Go(func() {
				_, err := repo.PushManifest(ctx, referrer(subject, 1+n), nil)
				if took := time.Since(begin); errors.Is(err, context.DeadlineExceeded) != (n == 1) || took > 2500*time.Millisecond {
					t.Errorf("%d, after %v: %v", n, took, err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		if got := len(listed(t, repo, subject.Digest)); got != 3 {
			t.Errorf("%d are listed, want 3", got)
		}
	})
}
