package containerd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/containerd"
)

const mebibyte = 1 << 20

// large is more than is sent at once.
var large = strings.Repeat("0123456789abcdef", 10*mebibyte/16)

func commit(tb testing.TB, w content.Writer, want string) {
	tb.Helper()
	must(tb, w.Commit(tb.Context(), int64(len(want)), digest.FromString(want)))
}

func TestAWriterGoesOnWhereTheLastOneEnded(t *testing.T) {
	for _, first := range []int{0, 1, 3 * mebibyte, 4 * mebibyte, 9*mebibyte + 1, len(large)} {
		t.Run(fmt.Sprint(first), func(t *testing.T) {
			store, repo := newWatched(t)
			ctx, cancel := context.WithCancel(t.Context())
			w, err := store.Writer(ctx, content.WithRef("r"))
			must(t, err)
			write(t, w, large[:first])
			cancel() // what is left behind needs no more requests
			must(t, w.Close())
			must(t, w.Close())
			w = writer(t, store, "r")
			if got := offset(t, w); got != int64(first) {
				t.Errorf("it goes on at %d, not at %d", got, first)
			}
			write(t, w, large[first:])
			commit(t, w, large)
			if got := readBlob(t, store, digest.FromString(large)); got != large {
				t.Errorf("it has %d bytes, want %d, or others", len(got), len(large))
			}
			if left := repo.left(t); len(left) != 0 {
				t.Errorf("uploads are left: %v", left)
			}
		})
	}
}

var errBroken = errors.New("the line is cut")

// An answer that did not come says nothing of what has arrived.
func TestAWriterGoesOnAfterAFailure(t *testing.T) {
	for _, arrive := range []int{0, 1, 2 * mebibyte, 4 * mebibyte} {
		t.Run(fmt.Sprint(arrive), func(t *testing.T) {
			store, repo := newWatched(t)
			chunks := 0
			repo.fail = func([]byte) (int, error) {
				if chunks++; chunks == 2 {
					return arrive, errBroken
				}
				return 0, nil
			}
			w := writer(t, store, "r", content.WithDescriptor(ocispec.Descriptor{Size: int64(len(large))}))
			n, err := io.WriteString(w, large)
			if !errors.Is(err, errBroken) {
				t.Fatalf("a write that failed: %v", err)
			}
			must(t, w.Close())
			w = writer(t, store, "r")
			if got := offset(t, w); got != int64(n) {
				t.Errorf("%d bytes were taken, and it goes on at %d", n, got)
			}
			must(t, content.Copy(t.Context(), w, strings.NewReader(large), int64(len(large)), digest.FromString(large)))
			if got := readBlob(t, store, digest.FromString(large)); got != large {
				t.Errorf("it has %d bytes, want %d, or others", len(got), len(large))
			}
		})
	}
}

func TestAnUploadThatIsLostBeginsAnew(t *testing.T) {
	store, repo := newWatched(t)
	w := writer(t, store, "r")
	write(t, w, large)
	must(t, w.Close())
	repo.lose(t)
	w = writer(t, store, "r")
	if got := offset(t, w); got != 0 {
		t.Errorf("nothing is there, and it goes on at %d", got)
	}
	write(t, w, "small")
	commit(t, w, "small")
	if got := readBlob(t, store, digest.FromString("small")); got != "small" {
		t.Errorf("it is %q", got)
	}
}

// Bytes that somebody else has added are not taken for the writer's.
func TestAnUploadThatWasChangedBeginsAnew(t *testing.T) {
	store, repo := newWatched(t)
	w := writer(t, store, "r")
	write(t, w, "some")
	must(t, w.Close())
	up, err := repo.Repository.ResumeUpload(t.Context(), repo.left(t)[0])
	must(t, err)
	_, err = io.WriteString(up, "something else")
	must(t, err)
	must(t, up.Close())
	w = writer(t, store, "r")
	if got := offset(t, w); got != 0 {
		t.Errorf("it goes on at %d", got)
	}
	write(t, w, "some")
	commit(t, w, "some")
	if left := repo.left(t); len(left) != 0 {
		t.Errorf("uploads are left: %v", left)
	}
}

func TestAWriterForSomethingElseBeginsAnew(t *testing.T) {
	store, _ := newWatched(t)
	first := ocispec.Descriptor{Size: 7, Digest: digest.FromString("content")}
	for what, next := range map[string]struct {
		desc ocispec.Descriptor
		want int64
	}{
		"the same":           {first, 3},
		"nothing said":       {ocispec.Descriptor{}, 3},
		"another size":       {ocispec.Descriptor{Size: 8}, 0},
		"another algorithm":  {ocispec.Descriptor{Digest: digest.SHA512.FromString("content")}, 0},
		"a size not known":   {ocispec.Descriptor{Size: -1, Digest: first.Digest}, 3},
		"a digest not known": {ocispec.Descriptor{Size: 7}, 3},
	} {
		w := writer(t, store, what, content.WithDescriptor(first))
		write(t, w, "con")
		must(t, w.Close())
		w = writer(t, store, what, content.WithDescriptor(next.desc))
		if got := offset(t, w); got != next.want {
			t.Errorf("%s: it goes on at %d, want %d", what, got, next.want)
		}
		must(t, w.Close())
		must(t, store.Abort(t.Context(), what))
	}
}

func TestARefHasOneWriter(t *testing.T) {
	store, _ := newStore(t)
	w := writer(t, store, "r")
	_, err := store.Writer(t.Context(), content.WithRef("r"))
	wants(t, "a second writer", err, errdefs.ErrUnavailable)
	must(t, writer(t, store, "other").Close())
	must(t, w.Close())
	must(t, writer(t, store, "r").Close())
	_, err = store.Writer(t.Context())
	wants(t, "a writer without a ref", err, errdefs.ErrInvalidArgument)
	_, err = store.Writer(t.Context(), func(*content.WriterOpts) error { return errBroken })
	wants(t, "an option that fails", err, errBroken)
}

func TestContentThatIsThereIsNotWritten(t *testing.T) {
	registry := open(t)
	pushed, err := registry.Push(t.Context(), single(t, "one"), "app/there:v1", nil)
	must(t, err)
	repo := &watched{Repository: repository(t, registry, "app/there")}
	store := containerd.NewStore(repo)
	for d, raw := range contents(t, store, pushed.Descriptor) {
		_, err := store.Writer(t.Context(), content.WithRef("r"), content.WithDescriptor(ocispec.Descriptor{Digest: d}))
		wants(t, "a writer of what is there", err, errdefs.ErrAlreadyExists)
		w := writer(t, store, "r")
		write(t, w, raw)
		wants(t, "a commit of what is there", w.Commit(t.Context(), 0, ""), errdefs.ErrAlreadyExists)
		if got := offset(t, writerOnce(t, store, "r")); got != 0 {
			t.Errorf("after that the ref goes on at %d", got)
		}
	}
	must(t, store.Abort(t.Context(), "r"))
	if left := repo.left(t); len(left) != 0 {
		t.Errorf("uploads are left: %v", left)
	}
}

// writerOnce is a writer that is closed already.
func writerOnce(tb testing.TB, store content.Ingester, ref string) content.Writer {
	tb.Helper()
	w := writer(tb, store, ref)
	must(tb, w.Close())
	return w
}

func TestACommitIsCompared(t *testing.T) {
	store, _ := newStore(t)
	const text = "content"
	tests := []struct {
		what     string
		size     int64
		expected digest.Digest
		want     error
	}{
		{"another size", 8, "", errdefs.ErrFailedPrecondition},
		{"another digest", 7, nothing, errdefs.ErrFailedPrecondition},
		{"no digest", 0, "what", errdefs.ErrInvalidArgument},
	}
	for _, tt := range tests {
		w := writer(t, store, "r")
		if offset(t, w) == 0 {
			write(t, w, text)
		}
		err := w.Commit(t.Context(), tt.size, tt.expected)
		wants(t, tt.what, err, tt.want)
		if !strings.Contains(fmt.Sprint(err), `"r"`) {
			t.Errorf("%s: the error does not name the ref: %v", tt.what, err)
		}
		_, err = w.Write([]byte("more"))
		wants(t, "a write after a commit", err, errdefs.ErrFailedPrecondition)
	}
	w := writer(t, store, "r")
	if got := offset(t, w); got != int64(len(text)) {
		t.Errorf("what was refused is lost: it goes on at %d", got)
	}
	wants(t, "an option that fails", w.Commit(t.Context(), 0, "", func(*content.Info) error { return errBroken }), errBroken)
	w = writer(t, store, "r")
	must(t, w.Commit(t.Context(), 7, digest.FromString(text), content.WithLabels(map[string]string{"a": "b"})))
	wants(t, "a second commit", w.Commit(t.Context(), 7, ""), errdefs.ErrFailedPrecondition)
	if w.Digest() != digest.FromString(text) {
		t.Errorf("the digest is %s", w.Digest())
	}
}

// Of another algorithm than was announced the registry knows the digest.
func TestACommitByAnotherAlgorithm(t *testing.T) {
	store, _ := newStore(t)
	w := writer(t, store, "r")
	write(t, w, "content")
	want := digest.SHA512.FromString("content")
	must(t, w.Commit(t.Context(), 0, want))
	if w.Digest() != want {
		t.Errorf("the digest is %s, want %s", w.Digest(), want)
	}
	if got := readBlob(t, store, want); got != "content" {
		t.Errorf("it is %q", got)
	}
	w = writer(t, store, "r")
	write(t, w, "something else")
	wants(t, "another digest", w.Commit(t.Context(), 0, want[:len(want)-1]+"0"), errdefs.ErrFailedPrecondition, berth.ErrDigestInvalid)
	announced := digest.SHA512.FromString("announced")
	w = writer(t, store, "s", content.WithDescriptor(ocispec.Descriptor{Digest: announced}))
	write(t, w, "announced")
	if w.Digest() != announced {
		t.Errorf("the digest is %s, want %s", w.Digest(), announced)
	}
	must(t, w.Commit(t.Context(), 0, ""))
}

func TestWhatTheRegistryRefusesIsOver(t *testing.T) {
	store, repo := newWatched(t)
	repo.refuse = fmt.Errorf("no: %w", berth.ErrDenied)
	w := writer(t, store, "r")
	write(t, w, "content")
	wants(t, "a commit that is refused", w.Commit(t.Context(), 0, ""), berth.ErrDenied, errdefs.ErrPermissionDenied)
	_, err := store.Status(t.Context(), "r")
	wants(t, "the status after that", err, errdefs.ErrNotFound)
}

func TestTruncate(t *testing.T) {
	store, repo := newWatched(t)
	w := writer(t, store, "r", content.WithDescriptor(ocispec.Descriptor{Size: 7}))
	before, err := w.Status()
	must(t, err)
	write(t, w, large)
	wants(t, "to a size", w.Truncate(5), errdefs.ErrNotImplemented)
	if got := offset(t, w); got != int64(len(large)) {
		t.Errorf("what was refused has changed the offset to %d", got)
	}
	must(t, w.Truncate(0))
	after, err := w.Status()
	must(t, err)
	if after.Offset != 0 || after.Total != 7 || after.StartedAt != before.StartedAt || w.Digest() != digest.FromString("") {
		t.Errorf("the status is %+v, the digest %s", after, w.Digest())
	}
	write(t, w, "content")
	commit(t, w, "content")
	wants(t, "after a commit", w.Truncate(0), errdefs.ErrFailedPrecondition)
	if left := repo.left(t); len(left) != 0 {
		t.Errorf("uploads are left: %v", left)
	}
}

func TestAnUploadThatCannotBegin(t *testing.T) {
	store, repo := newWatched(t)
	w := writer(t, store, "r")
	write(t, w, "content")
	repo.full = fmt.Errorf("the disk is full: %w", berth.ErrTooManyRequests)
	wants(t, "to begin anew", w.Truncate(0), berth.ErrTooManyRequests)
	_, err := io.WriteString(w, large)
	wants(t, "a write after that", err, errdefs.ErrFailedPrecondition)
	wants(t, "a commit", w.Commit(t.Context(), 0, ""), errdefs.ErrFailedPrecondition)
	must(t, w.Close())
	_, err = store.Writer(t.Context(), content.WithRef("r"))
	wants(t, "another writer", err, berth.ErrTooManyRequests)
	_, err = store.Status(t.Context(), "r")
	wants(t, "the status", err, errdefs.ErrNotFound)
	repo.full = nil
	w = writer(t, store, "r")
	write(t, w, "content")
	commit(t, w, "content")
}

func TestAbort(t *testing.T) {
	store, repo := newWatched(t)
	wants(t, "what was not begun", store.Abort(t.Context(), "r"), errdefs.ErrNotFound)
	must(t, writerOnce(t, store, "r").Close())
	must(t, store.Abort(t.Context(), "r"))
	wants(t, "a second time", store.Abort(t.Context(), "r"), errdefs.ErrNotFound)

	w := writer(t, store, "r")
	write(t, w, large)
	must(t, store.Abort(t.Context(), "r"))
	if left := repo.left(t); len(left) != 0 {
		t.Errorf("uploads are left: %v", left)
	}
	_, err := store.Status(t.Context(), "r")
	wants(t, "the status", err, errdefs.ErrNotFound)
	_, err = w.Write([]byte("more"))
	wants(t, "a write", err, errdefs.ErrAborted)
	next := writer(t, store, "r")
	wants(t, "a commit", w.Commit(t.Context(), 0, ""), errdefs.ErrAborted)
	must(t, w.Close())
	_, err = store.Writer(t.Context(), content.WithRef("r"))
	wants(t, "the ref, which another writer has", err, errdefs.ErrUnavailable)
	if got := offset(t, next); got != 0 {
		t.Errorf("the next writer begins at %d", got)
	}
	must(t, next.Close())
}

func TestStatuses(t *testing.T) {
	store, _ := newStore(t)
	for _, ref := range []string{"layer-b", "config-c", "layer-a"} {
		w := writer(t, store, ref, content.WithDescriptor(ocispec.Descriptor{Size: 100, Digest: digest.FromString(ref)}))
		write(t, w, ref)
		must(t, w.Close())
	}
	status, err := store.Status(t.Context(), "layer-a")
	must(t, err)
	if status.Ref != "layer-a" || status.Offset != 7 || status.Total != 100 || status.Expected != digest.FromString("layer-a") || status.UpdatedAt.Before(status.StartedAt) {
		t.Errorf("the status is %+v", status)
	}
	for filter, want := range map[string][]string{
		"":              {"config-c", "layer-a", "layer-b"},
		"ref~=^layer-":  {"layer-a", "layer-b"},
		"ref==config-c": {"config-c"},
		"ref==nothing":  nil,
		"other==layer":  nil,
	} {
		var filters []string
		if filter != "" {
			filters = []string{filter}
		}
		found, err := store.ListStatuses(t.Context(), filters...)
		must(t, err)
		var refs []string
		for _, status := range found {
			refs = append(refs, status.Ref)
		}
		if !slices.Equal(refs, want) {
			t.Errorf("filter %q finds %v, want %v", filter, refs, want)
		}
	}
	_, err = store.ListStatuses(t.Context(), "ref=")
	wants(t, "what is no filter", err, errdefs.ErrInvalidArgument)
	_, err = store.Status(t.Context(), "nothing")
	wants(t, "a ref that is not there", err, errdefs.ErrNotFound)
}

// Statuses are told while a request is under way, and an abort waits for its end.
func TestOneWritesWhileOthersLook(t *testing.T) {
	store, repo := newWatched(t)
	under, done := make(chan bool), make(chan bool)
	chunks := 0
	repo.fail = func([]byte) (int, error) {
		if chunks++; chunks == 1 {
			close(under)
			<-done
		}
		return 0, nil
	}
	w := writer(t, store, "r")
	var group sync.WaitGroup
	group.Go(func() {
		if n, err := io.WriteString(w, large); err != nil && !errdefs.IsAborted(err) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	})
	<-under
	if status, err := store.Status(t.Context(), "r"); err != nil || status.Ref != "r" {
		t.Errorf("the status is %+v: %v", status, err)
	}
	if all, err := store.ListStatuses(t.Context()); len(all) != 1 || err != nil {
		t.Errorf("the statuses are %v: %v", all, err)
	}
	group.Go(func() {
		if err := store.Abort(t.Context(), "r"); err != nil {
			t.Error(err)
		}
	})
	close(done)
	group.Wait()
	_, err := w.Write([]byte("more"))
	wants(t, "a write after the abort", err, errdefs.ErrAborted)
	must(t, w.Close())
	if left := repo.left(t); len(left) != 0 {
		t.Errorf("uploads are left: %v", left)
	}
}
