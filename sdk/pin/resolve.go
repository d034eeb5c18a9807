package pin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/durable"
	"github.com/berthoci/berth/manifest/schema1"
)

// parallel bounds how many references are asked for at once.
const parallel = 8

// Fetcher finds the manifest that a normalised reference names now. Its method may run at once.
type Fetcher interface {
	// FetchReference returns the manifest. The reference is what Normalize returns; SplitHost
	// tells where it lies.
	//
	// Errors: berth.ErrManifestUnknown or berth.ErrNameUnknown where the reference names nothing.
	FetchReference(ctx context.Context, reference string) (berth.Manifest, error)
}

// Change is what Add did to one reference. Old equals New where nothing moved.
type Change struct {
	// Reference in the form that Normalize returns.
	Reference string `json:"reference"`
	// Old is what was pinned before; empty: the pin is new.
	Old digest.Digest `json:"old,omitempty"`
	// New is what is pinned now.
	New digest.Digest `json:"new"`
}

// Drift is a difference between a pin and what its reference names now.
type Drift struct {
	// Reference of the pin.
	Reference string `json:"reference"`
	// Pinned is the pin's digest.
	Pinned digest.Digest `json:"pinned"`
	// Found is what the reference names now; empty: nothing.
	Found digest.Digest `json:"found,omitempty"`
	// Reason says what differs, for people.
	Reason string `json:"reason"`
}

// wish is a reference that somebody wants to know the manifest of.
type wish struct {
	key string
	// digest that the manifest must have; empty: any.
	digest digest.Digest
	// found and err are the answer.
	found Pin
	err   error
}

// Add pins what the references name now, and returns what it did, in their order. References need
// not be normalised; one that also has a digest must name that. What could be resolved is set, and
// the error joins what could not. Add does not save.
func Add(ctx context.Context, f *File, from Fetcher, references ...string) ([]Change, error) {
	found, err := find(ctx, from, references)
	changes, setErr := f.add(found)
	return changes, errors.Join(err, setErr)
}

// AddTo is Add to a lock file on disk, which is made if it is not there, and durable when AddTo returns. Several may
// run at once, in one process or in many, and what each has pinned is there; on Windows that cannot be promised.
//
// Errors: those of Load, before anything is asked for; those of Add, with which what could be resolved is saved.
func AddTo(ctx context.Context, path string, from Fetcher, references ...string) ([]Change, error) {
	if _, err := Load(path); err != nil {
		return nil, err
	}
	found, err := find(ctx, from, references)
	if len(found) == 0 {
		return nil, err
	}
	changes, saveErr := save(ctx, path, found)
	return changes, errors.Join(err, saveErr)
}

// save sets pins in a lock file, which others may have changed since it was last looked at.
func save(ctx context.Context, path string, pins []Pin) ([]Change, error) {
	real := path
	if at, err := filepath.EvalSymlinks(path); err == nil { // by whatever name others know it
		real = at
	}
	unlock, err := durable.LockDir(ctx, filepath.Dir(real))
	if err != nil {
		return nil, fmt.Errorf("lock file %s: %w", path, err)
	}
	defer unlock()
	f, err := Load(path)
	if err != nil {
		return nil, err
	}
	changes, err := f.add(pins)
	if err != nil {
		return nil, err
	}
	if err := f.Save(); err != nil {
		return nil, fmt.Errorf("lock file %s: %w", path, err)
	}
	return changes, nil
}

// add sets pins, and tells what that changes.
func (f *File) add(pins []Pin) ([]Change, error) {
	var changes []Change
	for _, p := range pins {
		old, _ := f.Pin(p.Reference)
		changes = append(changes, Change{Reference: p.Reference, Old: old.Digest, New: p.Digest})
	}
	if err := f.set(pins); err != nil {
		return nil, err
	}
	return changes, nil
}

// find is what references name now, in their order. What could not be found is told.
func find(ctx context.Context, from Fetcher, references []string) (found []Pin, err error) {
	wishes, errs := wishesFor(references)
	resolve(ctx, from, wishes)
	for _, w := range wishes {
		if w.err == nil {
			found = append(found, w.found)
		} else {
			errs = append(errs, w.err)
		}
	}
	return found, join(ctx, errs)
}

// wishesFor makes one wish for each reference, however often and in what spelling it is named.
func wishesFor(references []string) ([]*wish, []error) {
	var wishes []*wish
	var errs []error
	byKey := make(map[string]*wish)
	for _, reference := range references {
		key, d, err := split(reference)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		w, ok := byKey[key]
		if !ok {
			w = &wish{key: key}
			byKey[key] = w
			wishes = append(wishes, w)
		}
		if w.digest != "" && d != "" && w.digest != d {
			errs = append(errs, refuse("%s is asked for with two digests, %s and %s: choose one", key, w.digest, d))
			continue
		}
		w.digest = cmp.Or(w.digest, d)
	}
	return wishes, errs
}

// resolve fulfils all wishes; one that fails does not stop the others.
func resolve(ctx context.Context, from Fetcher, wishes []*wish) {
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, w := range wishes {
		group.Go(func() error {
			w.found, w.err = lookUp(ctx, from, w.key)
			if w.err == nil && w.digest != "" && w.digest != w.found.Digest {
				w.err = fmt.Errorf("%s: %w: it names %s and not %s: pin it without the digest",
					w.key, berth.ErrPreconditionFailed, w.found.Digest, w.digest)
			}
			return nil
		})
	}
	group.Wait()
}

// join tells a cancelled context once, and not for each reference.
func join(ctx context.Context, errs []error) error {
	if ctx.Err() != nil {
		n := len(errs)
		errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, ctx.Err()) })
		if len(errs) < n {
			errs = append(errs, ctx.Err())
		}
	}
	return errors.Join(errs...)
}

func lookUp(ctx context.Context, from Fetcher, key string) (Pin, error) {
	if err := ctx.Err(); err != nil {
		return Pin{}, fmt.Errorf("%s: %w", key, err)
	}
	m, err := from.FetchReference(ctx, key)
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", key, err)
	}
	p, err := describe(m)
	if err != nil {
		return Pin{}, fmt.Errorf("%s: %w", key, err)
	}
	p.Reference = key
	return p, nil
}

// describe makes a pin of a manifest, whose bytes it checks.
func describe(m berth.Manifest) (Pin, error) {
	desc := m.Descriptor
	e, err := schema1.Open(desc.MediaType, m.Raw)
	if err != nil {
		return Pin{}, err
	}
	if err := e.Verify(desc.Digest); err != nil {
		return Pin{}, err
	}
	p := Pin{Digest: desc.Digest, MediaType: e.MediaType, Size: desc.Size}
	for _, child := range e.Manifests {
		if key, ok := platformKey(child.Platform); ok {
			p.addPlatform(key, child.Digest)
		}
	}
	return p, nil
}

// addPlatform keeps the first child of a platform: that is the one that clients take.
func (p *Pin) addPlatform(key string, d digest.Digest) {
	if p.Platforms == nil {
		p.Platforms = make(map[string]digest.Digest)
	}
	if _, ok := p.Platforms[key]; !ok {
		p.Platforms[key] = d
	}
}

// platformKey is how a platform is written in the lock file, if it can be.
func platformKey(p *v1.Platform) (string, bool) {
	if p == nil || (p.OS == "unknown" && p.Architecture == "unknown") {
		return "", false
	}
	key := p.OS
	if p.OSVersion != "" {
		key += "(" + p.OSVersion + ")"
	}
	key += "/" + p.Architecture
	if p.Variant != "" {
		key += "/" + p.Variant
	}
	return key, checkPlatform(key) == nil
}

// Verify compares every pin with what its reference names now: digest, media type, size and
// platforms. It returns the differences in file order; the error joins the pins that could not be
// asked for, and says nothing about the others.
func Verify(ctx context.Context, f *File, from Fetcher) ([]Drift, error) {
	pins := f.Pins()
	wishes := make([]*wish, len(pins))
	for i, p := range pins {
		wishes[i] = &wish{key: p.Reference}
	}
	resolve(ctx, from, wishes)
	var drifts []Drift
	var errs []error
	for i, w := range wishes {
		reason, err := compare(pins[i], w)
		if err != nil {
			errs = append(errs, err)
		}
		if reason != "" {
			drifts = append(drifts, Drift{Reference: w.key, Pinned: pins[i].Digest, Found: w.found.Digest, Reason: reason})
		}
	}
	return drifts, join(ctx, errs)
}

// compare returns in what the pin and the answer differ, or "".
func compare(p Pin, w *wish) (string, error) {
	switch {
	case errors.Is(w.err, berth.ErrManifestUnknown), errors.Is(w.err, berth.ErrNameUnknown):
		return "it names nothing any more", nil
	case w.err != nil:
		return "", w.err
	case p.Digest != w.found.Digest:
		return "it names another manifest", nil
	}
	var reasons []string
	if p.MediaType != w.found.MediaType {
		reasons = append(reasons, fmt.Sprintf("mediaType is %s, pinned as %s", w.found.MediaType, p.MediaType))
	}
	if p.Size != w.found.Size {
		reasons = append(reasons, fmt.Sprintf("size is %d, pinned as %d", w.found.Size, p.Size))
	}
	reasons = append(reasons, comparePlatforms(p.Platforms, w.found.Platforms)...)
	return strings.Join(reasons, "; "), nil
}

func comparePlatforms(pinned, found map[string]digest.Digest) []string {
	all := make(map[string]digest.Digest, len(pinned)+len(found))
	maps.Copy(all, pinned)
	maps.Copy(all, found)
	var reasons []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if pinned[key] != found[key] {
			reasons = append(reasons, fmt.Sprintf("platform %s is %s, pinned as %s", key, orNone(found[key]), orNone(pinned[key])))
		}
	}
	return reasons
}

func orNone(d digest.Digest) string {
	if d == "" {
		return "none"
	}
	return string(d)
}
