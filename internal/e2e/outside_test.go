//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/remote"
)

// outsideWriters is how many clients push while other programs edit the directory.
const outsideWriters = 8

// While eight clients push without pause, skopeo copies into the directory and another program rewrites
// index.json in place. Neither side loses anything.
func TestOtherProgramsWriteTheDirectory(t *testing.T) {
	s, edits := newShell(t), 200
	if testing.Short() {
		edits = 20
	}
	layout := s.path("layout")
	server, address := s.serve(layout)
	stop := s.pushWithoutPause(address)
	var outside []pushed
	for i := range edits {
		if i%2 == 0 {
			outside = append(outside, s.copyIntoDirectory(layout, i))
		} else {
			outside = append(outside, s.rewriteInPlace(layout, i))
		}
	}
	inside := stop()
	s.Logf("%d edits from outside, %d pushes", len(outside), len(inside))
	s.poll("the last edit", func() bool { return s.resolves(address, outside[len(outside)-1]) })
	all := append(outside, inside...)
	s.complete(address, outside)
	s.complete(address, s.sample(s.random(), inside))
	server.stop()
	s.listed(layout, all)
	s.inDirectory(layout, append(s.sample(s.random(), outside), s.sample(s.random(), inside)...))
}

// umoci removes what index.json does not lead to, while eight clients push without pause. Blobs whose
// manifests are still on their way are not lost.
func TestACollectorOfOthersWhileClientsPush(t *testing.T) {
	s, rounds := newShell(t), 20
	if testing.Short() {
		rounds = 4
	}
	layout := s.path("layout")
	server, address := s.serve(layout)
	stop := s.pushWithoutPause(address)
	for range rounds {
		s.must("berth", "checkout", "--layout", layout, "--", program(s.T, "umoci"), "gc", "--layout", layout)
	}
	all := stop()
	s.Logf("%d collections, %d pushes", rounds, len(all))
	s.complete(address, s.sample(s.random(), all))
	if out := s.run("berth", "fsck", "--layout", layout); out.code != 0 {
		s.Errorf("fsck: %d\n%s%s", out.code, out.stdout, out.stderr)
	}
	server.stop()
	s.listed(layout, all)
}

func (s *shell) resolves(address string, one pushed) bool {
	var m v1.Manifest
	raw := s.fetch("http://" + address + "/v2/" + one.repository + "/manifests/" + one.tag)
	return digest.FromBytes(raw) == one.root && json.Unmarshal(raw, &m) == nil
}

// copyIntoDirectory has skopeo copy an image into a layout that berth serves.
func (s *shell) copyIntoDirectory(layout string, i int) pushed {
	s.Helper()
	tag := fmt.Sprint("copied", i)
	made := s.smallImage(s.path(tag), "v1", 1)
	s.must("skopeo", "copy", "oci:"+s.path(tag)+":v1", "oci:"+layout+":outside/skopeo:"+tag)
	return pushed{"outside/skopeo", tag, made.root}
}

// rewriteInPlace is a program that adds an image to a layout: blobs first, then index.json, which it
// reads, changes and writes, with the annotations that it finds.
func (s *shell) rewriteInPlace(layout string, i int) pushed {
	s.Helper()
	tag := fmt.Sprint("written", i)
	made := s.smallImage(s.path(tag), "v1", 1)
	for _, d := range s.blobsOf(s.path(tag)) {
		content, err := os.ReadFile(blobFile(s.path(tag), d))
		s.check(err)
		s.write(blobFile(layout, d), string(content))
	}
	path := filepath.Join(layout, v1.ImageIndexFile)
	var index v1.Index
	s.poll("a whole index.json", func() bool {
		data, err := os.ReadFile(path)
		return err == nil && json.Unmarshal(data, &index) == nil
	})
	root := s.entriesOf(s.path(tag))[0]
	root.Annotations = map[string]string{v1.AnnotationRefName: "outside/written:" + tag}
	index.Manifests = append(index.Manifests, root)
	s.check(os.WriteFile(path, s.encode(index), 0o644))
	return pushed{"outside/written", tag, made.root}
}

// pushWithoutPause pushes images of its own making until it is stopped, and tells which were answered.
func (s *shell) pushWithoutPause(address string) (stop func() []pushed) {
	s.Helper()
	registry, err := remote.New(address, nil)
	s.check(err)
	ctx, cancel := context.WithCancel(s.Context())
	var mu sync.Mutex
	var all []pushed
	var writers sync.WaitGroup
	for w := range outsideWriters {
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				one, err := pushOne(ctx, registry, fmt.Sprint("inside/writer", w), fmt.Sprint("v", i))
				if err != nil && ctx.Err() == nil {
					s.Error(err)
					return
				}
				if err == nil {
					mu.Lock()
					all = append(all, one)
					mu.Unlock()
				}
			}
		})
	}
	return func() []pushed {
		cancel()
		writers.Wait()
		return all
	}
}

func pushOne(ctx context.Context, registry *remote.Registry, repository, tag string) (pushed, error) {
	image, err := newHostImageOf(layerSize)
	if err != nil {
		return pushed{}, err
	}
	repo, err := registry.Repository(repository)
	if err != nil {
		return pushed{}, err
	}
	for d, content := range image.blobs {
		if d == image.root.Digest {
			continue
		}
		up, err := repo.NewUpload(ctx, nil)
		if err != nil {
			return pushed{}, err
		}
		if _, err := up.Write(content); err != nil {
			return pushed{}, err
		}
		if _, err := up.Commit(ctx, d); err != nil {
			return pushed{}, err
		}
	}
	_, err = repo.PushManifest(ctx, image.blobs[image.root.Digest], &berth.PushOptions{Tags: []string{tag}})
	return pushed{repository, tag, image.root.Digest}, err
}

// listed makes sure that index.json names all of these, and that what it names is there.
func (s *shell) listed(layout string, all []pushed) {
	s.Helper()
	named := map[string]digest.Digest{}
	for _, entry := range s.entriesOf(layout) {
		named[entry.Annotations[v1.AnnotationRefName]] = entry.Digest
	}
	for _, one := range all {
		if got := named[one.repository+":"+one.tag]; got != one.root {
			s.Errorf("index.json says that %s:%s is %q, want %s", one.repository, one.tag, got, one.root)
		}
		if _, err := os.Stat(blobFile(layout, one.root)); err != nil {
			s.Error(err)
		}
	}
}
