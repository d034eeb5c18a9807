package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
)

// verifier looks at one layout, and notes what is not as it is to be.
type verifier struct {
	Task
	Result
	layout *ocilayout.Layout
	known  map[string]bool // digests that any repository may have
	intact map[string]bool // blobs and manifests that were read, by "repository@digest"
}

func newVerifier(task Task) *verifier {
	v := &verifier{Task: task, known: map[string]bool{}, intact: map[string]bool{}}
	v.Tags = map[string]digest.Digest{}
	for name := range task.Expect.Manifests {
		_, d := cutManifest(name)
		v.known[string(d)] = true
	}
	return v
}

func (v *verifier) note(class Class, format string, args ...any) {
	v.Findings = append(v.Findings, Finding{class, fmt.Sprintf(format, args...)})
}

// run looks at everything, first at the directory as it was left, last at the one that the store
// leaves.
func (v *verifier) run(ctx context.Context) Result {
	if v.Before {
		v.directory()
	}
	var err error
	if v.layout, err = openLayout(ctx, v.Layout, v.Durability); err != nil {
		v.note(Unreadable, "%s does not open: %v", v.Layout, err)
		return v.Result
	}
	v.registry(ctx)
	if err := v.layout.Close(); err != nil {
		v.note(Unreadable, "%s does not close: %v", v.Layout, err)
	}
	v.compareNames(v.directory())
	return v.Result
}

// registry looks at what the store serves.
func (v *verifier) registry(ctx context.Context) {
	for _, name := range v.Expect.Blobs {
		repo, d := cutManifest(name)
		v.blob(ctx, repo, v1.Descriptor{Digest: d, Size: -1})
	}
	if v.Collect {
		v.collect(ctx)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Expect.Manifests)) {
		v.manifest(ctx, name)
	}
	for _, name := range slices.Sorted(maps.Keys(v.Expect.Tags)) {
		v.tag(ctx, name)
	}
	v.lists(ctx)
	for _, name := range v.Manifests {
		v.image(ctx, name)
	}
}

// collect removes what no manifest names, where the store can.
func (v *verifier) collect(ctx context.Context) {
	collector, ok := any(v.layout).(berth.Collector)
	if !ok {
		return
	}
	if _, err := collector.GC(ctx, &berth.GCOptions{Grace: -1}); err != nil {
		v.note(Rejected, "garbage collection: %v", err)
	}
}

func (v *verifier) repository(name string) berth.Repository {
	repo, err := v.layout.Repository(name)
	if err != nil {
		panic(err) // the names are those of this program
	}
	return repo
}

// manifest looks up a manifest by its digest.
func (v *verifier) manifest(ctx context.Context, name string) {
	repo, d := cutManifest(name)
	_, err := v.repository(repo).Resolve(ctx, string(d))
	want := v.Expect.Manifests[name]
	switch {
	case err == nil && want == Gone:
		v.note(Lost, "%s was deleted and is there", name)
	case errors.Is(err, berth.ErrManifestUnknown) && want == There:
		v.note(Lost, "%s is not there", name)
	case err != nil && !errors.Is(err, berth.ErrManifestUnknown):
		v.note(Unreadable, "%s: %v", name, err)
	}
	if err == nil {
		v.Manifests = append(v.Manifests, name)
	}
}

// tag looks up a tag.
func (v *verifier) tag(ctx context.Context, name string) {
	repo, tag, _ := cutTag(name)
	desc, err := v.repository(repo).Resolve(ctx, tag)
	if err != nil && !errors.Is(err, berth.ErrManifestUnknown) {
		v.note(Unreadable, "%s: %v", name, err)
		return
	}
	if allowed := v.Expect.Tags[name]; !slices.Contains(allowed, string(desc.Digest)) {
		v.note(v.classOf(desc.Digest), "%s is %q, and may be %q", name, desc.Digest, allowed)
	}
	if err == nil {
		v.Tags[name] = desc.Digest
	}
}

// classOf tells a state that was from one that never was.
func (v *verifier) classOf(d digest.Digest) Class {
	if d == absent || v.known[string(d)] {
		return Lost
	}
	return Wrong
}

// image reads a manifest and everything below it, and its referrers.
func (v *verifier) image(ctx context.Context, name string) {
	if v.Read != nil && !v.Read[name] {
		return
	}
	repo, d := cutManifest(name)
	doc := v.fetch(ctx, repo, d)
	if doc == nil {
		return
	}
	for _, child := range doc.Successors() {
		if manifest.KindOf(child.MediaType) == 0 {
			v.blob(ctx, repo, child)
		} else {
			v.fetch(ctx, repo, child.Digest)
		}
	}
	if doc.Subject != nil && !v.referrers(ctx, repo, doc.Subject.Digest)[d] {
		v.note(Lost, "%s is not among the referrers of %s", name, doc.Subject.Digest)
	}
	for referrer := range v.referrers(ctx, repo, d) {
		if !slices.Contains(v.Manifests, repo+"@"+string(referrer)) {
			v.note(Lost, "%s is listed as a referrer of %s and is not there", referrer, name)
		}
	}
}

func (v *verifier) referrers(ctx context.Context, repo string, subject digest.Digest) map[digest.Digest]bool {
	found := map[digest.Digest]bool{}
	for desc, err := range v.repository(repo).Referrers(ctx, subject, nil) {
		if err != nil {
			v.note(Unreadable, "referrers of %s@%s: %v", repo, subject, err)
			break
		}
		found[desc.Digest] = true
	}
	return found
}

// fetch reads a manifest and makes sure that it is what its name says.
func (v *verifier) fetch(ctx context.Context, repo string, d digest.Digest) *manifest.Document {
	m, err := v.repository(repo).FetchManifest(ctx, string(d), nil)
	if err != nil {
		v.note(missingOr(err, berth.ErrManifestUnknown), "%s@%s: %v", repo, d, err)
		return nil
	}
	if got := d.Algorithm().FromBytes(m.Raw); got != d {
		v.note(Wrong, "%s@%s was served with bytes that hash to %s", repo, d, got)
		return nil
	}
	doc, err := manifest.Parse(m.Descriptor.MediaType, m.Raw)
	if err != nil {
		v.note(Unreadable, "%s@%s: %v", repo, d, err)
	}
	return doc
}

// missingOr is the class of a failure to read what is to be there.
func missingOr(err, missing error) Class {
	if errors.Is(err, missing) {
		return Lost
	}
	return Unreadable
}

// blob reads a blob and makes sure that it is what its name says. A size below 0 is not known.
func (v *verifier) blob(ctx context.Context, repo string, desc v1.Descriptor) {
	name := repo + "@" + string(desc.Digest)
	if v.intact[name] {
		return
	}
	b, err := v.repository(repo).OpenBlob(ctx, desc.Digest)
	if err != nil {
		v.note(missingOr(err, berth.ErrBlobUnknown), "blob %s: %v", name, err)
		return
	}
	defer b.Close()
	hash := desc.Digest.Algorithm().Hash()
	size, err := io.Copy(hash, b)
	got := digest.NewDigest(desc.Digest.Algorithm(), hash)
	switch {
	case err != nil:
		v.note(Unreadable, "blob %s: %v", name, err)
	case got != desc.Digest || (desc.Size >= 0 && size != desc.Size) || b.Descriptor().Size != size:
		v.note(Wrong, "blob %s was served with %d bytes of %d that hash to %s", name, size, desc.Size, got)
	default:
		v.intact[name] = true
	}
}

// lists looks for what a list names and a lookup does not, and the other way round.
func (v *verifier) lists(ctx context.Context) {
	inUse, listed := map[string]bool{}, map[string]bool{}
	for _, name := range v.Manifests {
		repo, _ := cutManifest(name)
		inUse[repo] = true
	}
	for repo, err := range v.layout.Repositories(ctx, "") {
		if err != nil {
			v.note(Unreadable, "list of repositories: %v", err)
			break
		}
		listed[repo] = true
	}
	if !maps.Equal(inUse, listed) {
		v.note(Lost, "the list of repositories is %q, those with manifests are %q", slices.Sorted(maps.Keys(listed)), slices.Sorted(maps.Keys(inUse)))
	}
	for repo := range listed {
		v.tagsOf(ctx, repo)
	}
}

func (v *verifier) tagsOf(ctx context.Context, repo string) {
	listed := map[string]bool{}
	for tag, err := range v.repository(repo).Tags(ctx, "") {
		if err != nil {
			v.note(Unreadable, "tags of %s: %v", repo, err)
			return
		}
		listed[repo+":"+tag] = true
		if _, ok := v.Tags[repo+":"+tag]; !ok {
			v.note(Lost, "%s:%s is listed, and is not there by lookup or never was", repo, tag)
		}
	}
	for name := range v.Tags {
		if owner, _, _ := cutTag(name); owner == repo && !listed[name] {
			v.note(Lost, "%s is there by lookup and not listed", name)
		}
	}
}
