package containerd_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth/adapters/containerd"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// containerd's own suite for stores. What it asks for that a repository has not, labels and times, is kept in
// front of it.
func TestTheSuiteOfContainerd(t *testing.T) {
	testsuite.ContentSuite(t, "berth", func(ctx context.Context, dir string) (context.Context, content.Store, func() error, error) {
		registry, err := sdk.Open(ctx, &sdk.Options{Layout: filepath.Join(dir, "layout"), Launcher: embedded.InProcess(), Private: true})
		if err != nil {
			return nil, nil, nil, err
		}
		repo, err := registry.Repository("app/suite")
		return ctx, &keeper{Store: containerd.NewStore(repo), infos: map[digest.Digest]content.Info{}}, registry.Close, err
	})
}

// keeper puts labels and times in front of a store, as containerd's metadata does.
type keeper struct {
	*containerd.Store

	mu    sync.Mutex // guards the field below
	infos map[digest.Digest]content.Info
}

func (k *keeper) Info(ctx context.Context, d digest.Digest) (content.Info, error) {
	info, err := k.Store.Info(ctx, d)
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := k.infos[d]
	kept.Digest, kept.Size = info.Digest, info.Size
	return kept, err
}

func (k *keeper) Update(_ context.Context, info content.Info, paths ...string) (content.Info, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	kept := k.infos[info.Digest]
	labels := map[string]string{}
	for name, value := range info.Labels {
		labels[name] = value
	}
	if len(paths) > 0 {
		labels = map[string]string{}
		for name, value := range kept.Labels {
			labels[name] = value
		}
		for _, path := range paths {
			name := strings.TrimPrefix(path, "labels.")
			delete(labels, name)
			if value := info.Labels[name]; value != "" {
				labels[name] = value
			}
		}
	}
	kept.Labels, kept.UpdatedAt = labels, time.Now()
	k.infos[info.Digest] = kept
	return kept, nil
}

func (k *keeper) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	w, err := k.Store.Writer(ctx, opts...)
	if err != nil {
		return nil, err
	}
	return keepingWriter{w, k}, nil
}

type keepingWriter struct {
	content.Writer
	keeper *keeper
}

func (w keepingWriter) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...content.Opt) error {
	if err := w.Writer.Commit(ctx, size, expected, opts...); err != nil {
		return err
	}
	info := content.Info{CreatedAt: time.Now(), UpdatedAt: time.Now()}
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return err
		}
	}
	w.keeper.mu.Lock()
	defer w.keeper.mu.Unlock()
	w.keeper.infos[w.Digest()] = info
	return nil
}
