package main

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
)

// store makes a blob a member of a repository, in one of the ways in which clients do.
func (w *writer) store(ctx context.Context, repo string, blob content) bool {
	if w.random.IntN(3) == 0 {
		if _, err := w.repository(repo).StatBlob(ctx, blob.desc.Digest); err == nil {
			return true
		}
	}
	return w.do(Op{Kind: Blob, Repo: repo, Digest: blob.desc.Digest}, func() error {
		return w.upload(ctx, w.repository(repo), blob)
	})
}

func (w *writer) upload(ctx context.Context, repo berth.Repository, blob content) error {
	up, err := repo.NewUpload(ctx, w.uploadOptions(blob.desc.Digest))
	if errors.Is(err, berth.ErrMounted) {
		return nil
	}
	if err != nil {
		return err
	}
	first := w.random.IntN(len(blob.data) + 1)
	if _, err := up.Write(blob.data[:first]); err != nil {
		return err
	}
	if w.random.IntN(4) == 0 {
		if up, err = resume(ctx, repo, up); err != nil {
			return err
		}
	}
	if _, err := up.Write(blob.data[first:]); err != nil {
		return err
	}
	_, err = up.Commit(ctx, blob.desc.Digest)
	return err
}

// uploadOptions announce the algorithm mostly, and try to mount sometimes.
func (w *writer) uploadOptions(d digest.Digest) *berth.UploadOptions {
	opts := &berth.UploadOptions{}
	if w.random.IntN(4) > 0 {
		opts.Algorithm = d.Algorithm()
	}
	if w.random.IntN(3) == 0 {
		opts.Mount = d
	}
	return opts
}

// resume leaves an upload and comes back to it.
func resume(ctx context.Context, repo berth.Repository, up berth.Upload) (berth.Upload, error) {
	if err := up.Close(); err != nil {
		return nil, err
	}
	return repo.ResumeUpload(ctx, up.ID())
}
