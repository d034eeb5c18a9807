package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
)

// slowFile gives a MiB in each while.
type slowFile struct {
	*bytes.Reader
	while time.Duration
	got   int
}

func (f *slowFile) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p[:min(len(p), 64<<10)])
	for f.got += n; f.got >= 1<<20; f.got -= 1 << 20 {
		time.Sleep(f.while)
	}
	return n, err
}

func (f *slowFile) Close() error { return nil }

// Two MiB a second make four of the twelve in the life of a token.
func TestCase03ATokenThatEndsDuringAnUpload(t *testing.T) {
	for name, tt := range map[string]struct {
		opts  hostile.Options
		puts  int
		waste int64 // at most
	}{
		"the token is looked at first":           {hostile.Options{}, 1, 0},
		"and at the end, and what came is kept":  {hostile.Options{TokensAtEnd: true}, 2, 0},
		"and at the end, and nothing of it kept": {hostile.Options{TokensAtEnd: true, DropRefused: true}, 3, 20 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, desc := randomBlob(t, 12<<20)
				tt.opts.Tokens = hostile.NewTokenServer(&hostile.TokenOptions{Users: map[string]string{"ada": canary}, Lifetime: 2 * time.Second})
				s := newStage(t, tt.opts)
				var sent int64
				open := func() (io.ReadCloser, error) {
					return &slowFile{Reader: bytes.NewReader(content), while: 500 * time.Millisecond}, nil
				}
				err := s.open(t, "x").PushBlob(t.Context(), desc, open, &remote.BlobOptions{Sent: func(n int, _ int64) { sent += int64(n) }})
				if err != nil || !bytes.Equal(s.Blob("x", desc.Digest), content) {
					t.Fatal(err)
				}
				if puts := s.Count("PUT", ""); puts > tt.puts || sent > desc.Size+tt.waste {
					t.Errorf("it took %d PUT and %d bytes, want %d and %d at most", puts, sent, tt.puts, desc.Size+tt.waste)
				}
			})
		})
	}
}

// That a token has ended is no licence to ask for ever.
func TestCase03ATokenThatIsNeverGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, desc := randomBlob(t, 12<<20)
		s := newStage(t, hostile.Options{Tokens: adasTokens(), Faults: []*hostile.Fault{{On: hostile.On("PUT", ""), Status: 401}, {On: hostile.On("PATCH", ""), Status: 401}}})
		err := s.open(t, "x").PushBlob(t.Context(), desc, opener(content), nil)
		if asked := s.Count("PUT", "") + s.Count("PATCH", ""); !errors.Is(err, berth.ErrUnauthorized) || asked > 8 || s.Uploads() != 0 {
			t.Errorf("sent %d times, %d uploads left: %v", asked, s.Uploads(), err)
		}
	})
}

// moreThan selects what brings more bytes than a proxy lets through.
func moreThan(most int64) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.ContentLength > most }
}

// lengths are the bodies' of what was received by a method.
func (s *stage) lengths(method string) (all []int64) {
	for _, r := range s.Requests() {
		if r.Method == method && r.Length > 0 {
			all = append(all, r.Length)
		}
	}
	return all
}

func TestCase17ABlobThatIsTooLargeForOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{{On: moreThan(5 << 19), Status: 413, Body: "<html>"}}})
		repo := s.open(t, "x")
		for n, size := range []int{12 << 19, 9<<19 + 1} {
			content, desc := randomBlob(t, size)
			if err := repo.PushBlob(t.Context(), desc, opener(content), nil); err != nil || s.Blob("x", desc.Digest) == nil {
				t.Errorf("blob %d: %v", n, err)
			}
		}
		tooLarge := 0
		for _, n := range append(s.lengths("PUT"), s.lengths("PATCH")...) {
			if n > 5<<19 {
				tooLarge++
			}
		}
		if tooLarge != 2 { // all of it, and a half
			t.Errorf("%d requests were too large, want 2", tooLarge)
		}
	})
}

// A refusal of what cannot be made smaller is one, and says nothing about other blobs.
func TestCase17ASmallBlobThatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{{On: moreThan(100), Times: 1, Status: 413}}})
		repo := s.open(t, "x")
		small, desc := randomBlob(t, 200_000)
		if err := repo.PushBlob(t.Context(), desc, opener(small), nil); !errors.Is(err, berth.ErrSizeInvalid) {
			t.Errorf("got %v", err)
		}
		large, desc := randomBlob(t, 4<<20)
		if err := repo.PushBlob(t.Context(), desc, opener(large), nil); err != nil || s.Count("PATCH", "") != 0 {
			t.Errorf("after %d chunks: %v", s.Count("PATCH", ""), err)
		}
	})
}

func TestCase17ChunksAreAsLongAsTheRegistryWants(t *testing.T) {
	const least = 3 << 19
	long := func(t *testing.T, s *stage) {
		t.Helper()
		if all := s.lengths("PATCH"); len(all) < 2 || slices.Min(all) < least {
			t.Errorf("chunks of %d bytes, want %d at least", all, least)
		}
	}
	t.Run("Write", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, hostile.Options{MinChunk: least})
			content, desc := randomBlob(t, 11<<19+5)
			up, err := s.open(t, "x").NewUpload(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for part := range slices.Chunk(content, 350_000) {
				if n, err := up.Write(part); err != nil || n != len(part) {
					t.Fatal(n, err)
				}
			}
			if _, err := up.Commit(t.Context(), desc.Digest); err != nil || s.Blob("x", desc.Digest) == nil {
				t.Error(err)
			}
			long(t, s)
		})
	})
	t.Run("PushBlob", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, hostile.Options{MinChunk: least, Faults: []*hostile.Fault{{On: moreThan(2 << 20), Status: 413}}})
			content, desc := randomBlob(t, 11<<19+5)
			if err := s.open(t, "x").PushBlob(t.Context(), desc, opener(content), nil); err != nil || s.Blob("x", desc.Digest) == nil {
				t.Error(err)
			}
			long(t, s)
		})
	})
}

// ECR's repositories are known by their hosts: all there is goes in one PUT, also the second time.
func TestCase17ECR(t *testing.T) {
	for _, host := range []string{"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws"} {
		for name, fault := range map[string]*hostile.Fault{
			"goes well":  {Times: 1, On: hostile.On("NONE", "")},
			"breaks off": {Times: 1, On: hostile.On("PUT", ""), Cut: true, After: 3 << 19},
			"is refused": {Times: 1, On: hostile.On("PUT", ""), Status: 503},
		} {
			t.Run(host+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newStage(t, hostile.Options{OneChunk: true, Faults: []*hostile.Fault{fault}})
					s.network.Handle("https://"+host, s.Registry)
					content, desc := randomBlob(t, 3<<20)
					repo, err := s.client(t, host).Open("x")
					if err != nil {
						t.Fatal(err)
					}
					if err := repo.PushBlob(t.Context(), desc, opener(content), nil); err != nil || s.Blob("x", desc.Digest) == nil {
						t.Error(err)
					}
					for _, r := range s.Requests() {
						if r.Method == "PATCH" || r.Header.Get("Content-Range") != "" || r.Method == "PUT" && r.Length != desc.Size {
							t.Errorf("%s of %d bytes, range %q", r, r.Length, r.Header.Get("Content-Range"))
						}
					}
					if s.Uploads() != 0 {
						t.Errorf("%d uploads are left", s.Uploads())
					}
				})
			})
		}
	}
}

// What a registry takes of a chunk is where the next one begins, whatever it answers.
func TestCase17ARegistryThatTakesLessThanItIsSent(t *testing.T) {
	for name, opts := range map[string]hostile.Options{
		"all of it, and says 201":  {ChunkStatus: 201},
		"halves":                   {ShortChunks: 3},
		"halves, and says 201":     {ShortChunks: 3, ChunkStatus: 201},
		"halves, and says 416":     {HalfChunks: 2},
		"of a request without end": {ShortChunks: 1, HalfChunks: 1},
	} {
		content, desc := randomBlob(t, 7<<19)
		t.Run("Write/"+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, opts)
				up, err := s.open(t, "x").NewUpload(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}
				for part := range slices.Chunk(content, 1<<20) {
					if n, err := up.Write(part); err != nil || n != len(part) {
						t.Fatal(n, err)
					}
				}
				if _, err := up.Commit(t.Context(), desc.Digest); err != nil || !bytes.Equal(s.Blob("x", desc.Digest), content) {
					t.Error(err)
				}
			})
		})
		t.Run("PushBlob/"+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts.Faults = []*hostile.Fault{{On: moreThan(1 << 20), Status: 413}}
				s := newStage(t, opts)
				if err := s.open(t, "x").PushBlob(t.Context(), desc, opener(content), nil); err != nil || !bytes.Equal(s.Blob("x", desc.Digest), content) {
					t.Error(err)
				}
				if s.Count("POST", "") != 1 {
					t.Errorf("%d uploads were begun", s.Count("POST", ""))
				}
			})
		})
	}
}

// A registry that drops all chunks but the first gets the blob at once, and is known for it from then on: where its answer to a
// chunk shows it, and where only the digest does.
func TestCase17ARegistryThatDropsChunks(t *testing.T) {
	for chunks := range 2 {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, hostile.Options{OneChunk: true, Faults: []*hostile.Fault{{On: moreThan(1 << 20), Times: 1 + chunks, Status: 413}}})
			repo := s.open(t, "x")
			for _, size := range []int{7 << 19, 8 << 19} {
				content, desc := randomBlob(t, size)
				if err := repo.PushBlob(t.Context(), desc, opener(content), nil); err != nil || s.Blob("x", desc.Digest) == nil {
					t.Error(err)
				}
			}
			if n := s.Count("PATCH", ""); n > 3 || s.Count("POST", "") != 3 || s.Uploads() != 0 {
				t.Errorf("%d chunks were sent, of %d uploads; %d are left", n, s.Count("POST", ""), s.Uploads())
			}
		})
	}
}

// offByOne tells the number of bytes where the offset of the last is meant.
func offByOne(s *stage) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.Registry.ServeHTTP(&shifted{w}, r) })
}

type shifted struct{ http.ResponseWriter }

func (w *shifted) WriteHeader(status int) {
	var last int
	if _, err := fmt.Sscanf(w.Header().Get("Range"), "0-%d", &last); err == nil && last > 0 {
		w.Header().Set("Range", fmt.Sprintf("0-%d", last+1))
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *shifted) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// The connection breaks five times, and something else goes wrong. What is sent again is what got lost, and little else.
func TestCase17WhatBreaksOffAndMore(t *testing.T) {
	status, put := hostile.On("GET", "/uploads/"), hostile.On("PUT", "/uploads/")
	for name, tt := range map[string]struct {
		fault *hostile.Fault
		again bool // from the start, once
	}{
		"nothing else":                         {&hostile.Fault{Times: 1, On: hostile.On("NONE", "")}, false},
		"it forgets the upload":                {&hostile.Fault{Times: 1, On: status, Status: 404}, true},
		"it cannot be asked":                   {&hostile.Fault{Times: 1, On: status, Status: 405}, true},
		"it refuses the range":                 {&hostile.Fault{Times: 1, On: put, Status: 416}, false},
		"it has a fault":                       {&hostile.Fault{Times: 1, On: put, Status: 500}, false},
		"it has no time":                       {&hostile.Fault{Times: 1, On: put, Status: 503, RetryAfter: "1"}, false},
		"the answer to the question gets lost": {&hostile.Fault{Times: 1, On: status, Lose: true}, false},
		"the last answer gets lost":            {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, desc := randomBlob(t, 6<<20)
				var faults []*hostile.Fault
				for range 5 {
					faults = append(faults, &hostile.Fault{On: put, Times: 1, Cut: true, After: 1 + rand.Int64N(1<<20)})
				}
				if tt.fault != nil {
					faults = slices.Insert(faults, 2, tt.fault)
				} else {
					faults = append(faults, &hostile.Fault{On: put, Times: 1, Lose: true})
				}
				s := newStage(t, hostile.Options{Faults: faults})
				var sent int64
				err := s.open(t, "x").PushBlob(t.Context(), desc, opener(content), &remote.BlobOptions{Sent: func(n int, _ int64) { sent += int64(n) }})
				if err != nil || !bytes.Equal(s.Blob("x", desc.Digest), content) {
					t.Fatal(err)
				}
				most := desc.Size + 5<<18
				if tt.again {
					most += 5 << 20
				}
				if sent > most || s.Count("POST", "") > 2 {
					t.Errorf("%d bytes were sent, %d at most would do; %d uploads were begun", sent, most, s.Count("POST", ""))
				}
			})
		})
	}
}

func TestCase17ARangeThatIsOffByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{
			{On: hostile.On("PUT", ""), Times: 1, Cut: true, After: 3 << 19}, {On: moreThan(2 << 20), Status: 413},
		}})
		s.network.Handle("https://shifted.example", offByOne(s))
		repo, err := s.client(t, "shifted.example").Open("x")
		if err != nil {
			t.Fatal(err)
		}
		content, desc := randomBlob(t, 15<<19)
		if err := repo.PushBlob(t.Context(), desc, opener(content), nil); err != nil || s.Count("POST", "") > 2 {
			t.Errorf("after %d uploads: %v", s.Count("POST", ""), err)
		}
	})
}

// A body that has arrived in part must not be sent after it once more.
func TestCase17ASmallBlobThatBreaksOff(t *testing.T) {
	content, desc := randomBlob(t, 500_000)
	for name, fault := range map[string]hostile.Fault{"in its midst": {Cut: true, After: 200_000}, "at its end": {Lose: true}, "with a fault": {Status: 502}} {
		fault.On, fault.Times = hostile.On("PUT", ""), 1
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, hostile.Options{Faults: []*hostile.Fault{&fault}})
			if err := s.open(t, "x").PushBlob(t.Context(), desc, opener(content), nil); err != nil || s.Blob("x", desc.Digest) == nil || s.Count("POST", "") != 1 {
				t.Errorf("%s: after %d uploads: %v", name, s.Count("POST", ""), err)
			}
		})
	}
}

// What never comes further comes to an end.
func TestCase17ARegistryThatKeepsNothing(t *testing.T) {
	put, status := hostile.On("PUT", "/uploads/"), hostile.On("GET", "/uploads/")
	for name, faults := range map[string][]*hostile.Fault{
		"forgets each upload":   {{On: put, Cut: true, After: 1 << 20}, {On: status, Status: 404}},
		"breaks each time":      {{On: put, Cut: true}},
		"refuses each range":    {{On: put, Status: 416}},
		"says that it is wrong": {{On: put, Status: 400, Body: `{"errors":[{"code":"DIGEST_INVALID"}]}`}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, desc := randomBlob(t, 4<<20)
				s := newStage(t, hostile.Options{Faults: faults})
				err := s.open(t, "x").PushBlob(t.Context(), desc, opener(content), nil)
				if n := s.Count("PUT", ""); err == nil || n > 40 || s.Count("POST", "") > 5 {
					t.Errorf("%d times sent, %d uploads: %v", n, s.Count("POST", ""), err)
				}
			})
		})
	}
}

// A chunk that breaks off, and a commit whose answer does, are whole for who writes.
func TestCase17AWriterThatIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, desc := randomBlob(t, 3<<20)
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{
			{On: hostile.On("PATCH", ""), Times: 1, Cut: true, After: 1 << 19},
			{On: hostile.On("PUT", ""), Times: 1, Lose: true},
		}})
		up, err := s.open(t, "x").NewUpload(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for part := range slices.Chunk(content, 1<<20) {
			if _, err := up.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := up.Commit(t.Context(), desc.Digest); err != nil || got.Size != desc.Size || s.Blob("x", desc.Digest) == nil {
			t.Errorf("got %+v, %v", got, err)
		}
	})
}

// What is wrong with the source is not the registry's fault, and is not tried again.
func TestCase17ASourceThatFails(t *testing.T) {
	content, desc := randomBlob(t, 3<<20)
	gone := errors.New("the disk is gone")
	for name, tt := range map[string]struct {
		open func() (io.ReadCloser, error)
		want error
	}{
		"too short": {opener(content[:2<<20]), berth.ErrDigestInvalid},
		"too long":  {opener(append(content, 1)), berth.ErrDigestInvalid},
		"other":     {opener(append(content[:3<<20-1:3<<20-1], 'x'+content[3<<20-1])), berth.ErrDigestInvalid},
		"broken": {func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(content[:1<<20]), failing{gone})), nil
		}, gone},
		"absent": {func() (io.ReadCloser, error) { return nil, gone }, gone},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStage(t, hostile.Options{})
			err := s.open(t, "x").PushBlob(t.Context(), desc, tt.open, nil)
			if !errors.Is(err, tt.want) || s.Count("PUT", "") > 1 || s.Uploads() != 0 {
				t.Errorf("%s: sent %d times, %d uploads left: %v", name, s.Count("PUT", ""), s.Uploads(), err)
			}
		})
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// Row 22: who has not pushed a child can tell that from the refusal, whatever form it has.
func TestCase22AChildThatIsMissing(t *testing.T) {
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":7}]}`,
		v1.MediaTypeImageIndex, v1.MediaTypeImageManifest, emptyDigest)
	put := hostile.On("PUT", "/manifests/")
	for name, tt := range map[string]struct {
		fault hostile.Fault
		want  error
	}{
		"as the specification has it": {hostile.Fault{On: hostile.On("NONE", "")}, berth.ErrManifestBlobUnknown},
		"as a manifest":               {hostile.Fault{On: put, Status: 404, Body: `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`}, berth.ErrManifestUnknown},
		"as a blob":                   {hostile.Fault{On: put, Status: 400, Body: `{"errors":[{"code":"BLOB_UNKNOWN"}]}`}, berth.ErrBlobUnknown},
		"in plain text":               {hostile.Fault{On: put, Status: 404, Body: "manifest unknown"}, berth.ErrNameUnknown},
		"with a code of its own":      {hostile.Fault{On: put, Status: 404, Body: `{"errors":[{"code":"NOT_FOUND","message":"no child"}]}`}, berth.ErrNameUnknown},
	} {
		s := newStage(t, hostile.Options{Faults: []*hostile.Fault{&tt.fault}})
		_, err := s.open(t, "x").PushManifest(t.Context(), index, &berth.PushOptions{Tags: []string{"v1"}})
		if !errors.Is(err, tt.want) || strings.Contains(err.Error(), canary) || len(s.Tags("x")) != 0 {
			t.Errorf("%s: tags %q, %v", name, s.Tags("x"), err)
		}
	}
}
