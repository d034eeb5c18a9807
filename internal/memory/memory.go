// Package memory is a registry in memory: the contract of package berth, written as plainly as code
// can say it. It is what the tests of other registries compare them with.
//
// A repository is four maps: the blobs that are its members, its manifests, its tags, and its
// unfinished uploads. One mutex guards all that a registry has. Nothing is indexed, every list is made
// by looking at everything, and nothing outlives the process.
//
//	registry := memory.New()
//	repo, err := registry.Repository("app/hello")
//
// Where more than one thing is wrong with a call, the answer is the first of these: what is wrong with
// its arguments, in the order in which they are read (tags, manifest, digest); a precondition that does
// not hold; what is missing.
package memory

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest/schema1"
)

// Registry is a registry in memory. It implements [berth.Registry].
type Registry struct {
	mu           sync.Mutex // guards the field below, and all that the repositories hold
	repositories map[string]*repository
}

// repository is one repository of a registry. It may hold nothing, and then it does not exist.
type repository struct {
	registry  *Registry
	name      string
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]stored
	tags      map[string]digest.Digest
	uploads   map[string]*pending
}

// stored is a manifest that is a member of a repository.
type stored struct {
	berth.Manifest
	entry *schema1.Entry
}

// New returns an empty registry.
func New() *Registry {
	return &Registry{repositories: map[string]*repository{}}
}

// Repository returns the repository of that name.
func (reg *Registry) Repository(name string) (berth.Repository, error) {
	if err := berth.ValidateRepository(name); err != nil {
		return nil, err
	}
	reg.mu.Lock()
	defer reg.mu.Unlock()
	if reg.repositories[name] == nil {
		reg.repositories[name] = &repository{
			registry: reg, name: name,
			blobs: map[digest.Digest][]byte{}, manifests: map[digest.Digest]stored{},
			tags: map[string]digest.Digest{}, uploads: map[string]*pending{},
		}
	}
	return reg.repositories[name], nil
}

// Repositories yields the names of the repositories that hold a manifest.
func (reg *Registry) Repositories(ctx context.Context, after string) iter.Seq2[string, error] {
	return list(ctx, func() ([]string, error) {
		reg.mu.Lock()
		defer reg.mu.Unlock()
		var names []string
		for _, name := range slices.Sorted(maps.Keys(reg.repositories)) {
			if name > after && len(reg.repositories[name].manifests) > 0 {
				names = append(names, name)
			}
		}
		return names, nil
	})
}

// Name is the repository's name.
func (r *repository) Name() string { return r.name }

// list yields what read returns, which reads it all at once: no lock is held while it is yielded.
func list[T any](ctx context.Context, read func() ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		all, err := read()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if err != nil {
			yield(*new(T), err)
			return
		}
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
	}
}
