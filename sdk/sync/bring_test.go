package sync_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/sync"
)

// losing is a registry whose blob is lost, before or while it is read.
type losing struct {
	berth.Registry
	lost   digest.Digest
	midway bool
}

func (l losing) Repository(name string) (berth.Repository, error) {
	repo, err := l.Registry.Repository(name)
	return losingRepository{repo, l}, err
}

type losingRepository struct {
	berth.Repository
	of losing
}

func (r losingRepository) OpenBlob(ctx context.Context, d digest.Digest) (berth.Blob, error) {
	if d != r.of.lost {
		return r.Repository.OpenBlob(ctx, d)
	}
	if !r.of.midway {
		return nil, berth.ErrBlobUnknown
	}
	blob, err := r.Repository.OpenBlob(ctx, d)
	return &lostBlob{Blob: blob}, err
}

// lostBlob has its first byte.
type lostBlob struct {
	berth.Blob
	read bool
}

func (b *lostBlob) Read(p []byte) (int, error) {
	if b.read {
		return 0, berth.ErrBlobUnknown
	}
	b.read = true
	return b.Blob.Read(p[:1])
}

// What the source lacks says nothing about the target: what is known of that is believed still, and it is not tried again.
func TestWhatTheSourceLacksIsNoReasonToDoubtTheTarget(t *testing.T) {
	for _, midway := range []bool{false, true} {
		from, to, images := local(t), serve(t), store{}
		base := images.layer("base")
		images.push(t, from, "app", images.image(base, images.layer("one")), "v1")
		places := remembered(t, to, filepath.Join(t.TempDir(), "journal"))
		_, err := run(t, from, places, everything)
		must(t, err)
		lost := images.layer("lost")
		images.push(t, from, "app", images.image(base, lost), "v2")
		to.forget()
		_, err = run(t, losing{from, lost.Digest, midway}, places, sync.Selection{Patterns: []string{"app:v2"}})
		if !errors.Is(err, berth.ErrBlobUnknown) {
			t.Errorf("got %v", err)
		}
		if n := to.count("HEAD /v2/app/blobs/" + string(base.Digest)); n != 0 {
			t.Errorf("in its midst: %v: the layer that is there was looked for", midway)
		}
		if n := to.count("POST"); n != 1 {
			t.Errorf("in its midst: %v: %d uploads were begun", midway, n)
		}
	}
}
