package ocilayout_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/memory"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/ocilayout"
)

var operations = flag.Int("operations", 2000, "about how many operations the comparison with the model does")

// Whatever is done to a layout, by its callers and by other tools, it answers as the model does: the
// contract over a few maps. What rapid prints of a failure is a history that is as short as it could
// make it, and the file with which to run that one again.
func TestALayoutDoesAsTheModel(t *testing.T) {
	const perHistory = 50
	setDefault(t, "rapid.steps", perHistory)
	setDefault(t, "rapid.checks", max(1, *operations/perHistory))
	done := 0
	defer func() { t.Logf("%d operations", done) }()
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(rt)
		rt.Repeat(h.actions(&done))
		h.compareAll(rt)
		h.compareFile(rt)
		h.follow(rt)
	})
}

// setDefault sets a flag that was not given.
func setDefault(t *testing.T, name string, value int) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	if err := flag.Set(name, strconv.Itoa(value)); err != nil {
		t.Fatal(err)
	}
}

// history is a layout and its model, and what is needed to do the same to both.
type history struct {
	dir     string
	layout  *ocilayout.Layout
	model   *memory.Registry
	resting []resting
	copies  []copied

	// clock counts operations, and moved says when each tag, by its name in index.json, last moved
	// here, and when each manifest, as repository@digest, was last removed.
	clock int
	moved map[string]int
	// foreign are the names of entries of index.json that lead nowhere, and when they came.
	foreign map[string]int
	// past is where tags pointed before other programs moved them, one after the other.
	past map[string][]pointed
	// consumer follows the events; nil in a history that nobody watches.
	consumer *consumer
}

// copied is index.json as another tool read it at some time.
type copied struct {
	data  []byte
	clock int
}

func newHistory(t *rapid.T) *history {
	dir, err := os.MkdirTemp("", "layout")
	must(t, err)
	h := &history{dir: dir, model: memory.New(), moved: map[string]int{}, foreign: map[string]int{}, past: map[string][]pointed{}}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Cleanup(func() { h.layout.Close() })
	h.open(t)
	h.attach(t)
	return h
}

func (h *history) open(t *rapid.T) {
	opts := rapid.SampledFrom([]*ocilayout.Options{nil, {Durability: ocilayout.Process}, {Durability: ocilayout.Power}})
	var err error
	h.layout, err = ocilayout.Open(context.Background(), h.dir, opts.Draw(t, "options"))
	must(t, err)
}

func (h *history) actions(done *int) map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){
		"upload": h.upload, "continue an upload": h.continueUpload, "resume what is not there": h.resumeWrongly,
		"mount": h.mount, "stat blob": h.statBlob, "open blob": h.openBlob, "delete blob": h.deleteBlob,
		"push": h.pushManifest, "push an image": h.pushImage, "push an image again": h.pushImage,
		"resolve": h.resolve, "fetch": h.fetch, "untag": h.untag, "delete manifest": h.deleteManifest,
		"list tags": h.listTags, "list repositories": h.listRepositories, "list referrers": h.listReferrers,
		"restart": h.restart, "flush": h.compareFile, "read index.json": h.readFile, "edit index.json": h.editFile,
		"compare all": h.compareAll, "follow": h.follow,
	}
	for name, action := range actions {
		actions[name] = func(t *rapid.T) {
			h.clock++
			action(t)
			*done++
		}
	}
	return actions
}

// ask asks the layout (side 0) and then the model (side 1) the same and compares the answers.
func ask[T any](t *rapid.T, h *history, repo string, question func(side int, r berth.Repository) (T, error)) (T, error) {
	t.Helper()
	var answers [2]T
	var errs [2]error
	for side, registry := range []berth.Registry{h.layout, h.model} {
		r, err := registry.Repository(repo)
		if err == nil {
			answers[side], err = question(side, r)
		}
		errs[side] = err
	}
	if got, want := show(answers[0], errs[0]), show(answers[1], errs[1]); got != want {
		fail(t, "%s: the layout answers\n%s\nthe model answers\n%s", repo, got, want)
	}
	return answers[0], errs[0]
}

var digestPattern = regexp.MustCompile(`sha\d+:[0-9a-f]+`)

// show writes an answer in a way that two can be compared: of an error that matters on which a caller
// may branch, and of one that names missing children, which.
func show(v any, err error) string {
	switch {
	case errors.Is(err, berth.ErrMounted):
		return "mounted"
	case errors.Is(err, berth.ErrManifestBlobUnknown):
		return fmt.Sprint(berth.Code(err), digestPattern.FindAllString(err.Error(), -1))
	case berth.Code(err) != "":
		return berth.Code(err)
	case err != nil:
		return "an error without a code: " + err.Error()
	}
	data, _ := json.Marshal(v)
	return string(data)
}

// fail fails with the names of digests.
func fail(t *rapid.T, format string, args ...any) {
	t.Helper()
	t.Fatal(readable.Replace(fmt.Sprintf(format, args...)))
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func collect[T any](seq iter.Seq2[T, error]) (all []T, err error) {
	for v, err := range seq {
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, nil
}

// pushManifest pushes anything in any way.
func (h *history) pushManifest(t *rapid.T) {
	repo, img := drawRepository(t), imageNamed(draw(t, "manifest", manifests...))
	opts := &berth.PushOptions{
		MediaType:    draw(t, "declared", append([]string{img.mediaType, ""}, mediaTypes...)...),
		Tags:         rapid.SliceOfN(rapid.Custom(drawTag), 0, 3).Draw(t, "tags"),
		IfNoneMatch:  rarely(t, "if none match"),
		AllowMissing: rapid.Bool().Draw(t, "allow missing"),
	}
	if rapid.IntRange(0, 4).Draw(t, "digest given") == 4 {
		opts.Digest = drawDigest(t, []string{img.name, img.name, img.name, "image"})
	}
	if rarely(t, "if match") {
		opts.IfMatch = h.drawMatch(t, repo, append(opts.Tags, "none")[0])
	}
	h.push(t, repo, img.raw, opts)
}

// drawMatch draws where a tag is, or where it is not.
func (h *history) drawMatch(t *rapid.T, repo, tag string) digest.Digest {
	if d := h.modelTags(t)[refName(repo, tag)]; d != "" && rapid.Bool().Draw(t, "match") {
		return d
	}
	return digests[draw(t, "match", "absent", "image sha256")]
}

// pushImage pushes as a client does that has a whole image: what it needs first.
func (h *history) pushImage(t *rapid.T) {
	repo, img := draw(t, "repository", repositories...), imageNamed(draw(t, "manifest", manifests...))
	h.pushWhole(t, repo, img.mediaType, img.raw, rapid.SliceOfN(rapid.SampledFrom(tags), 0, 2).Draw(t, "tags"))
}

func (h *history) pushWhole(t *rapid.T, repo, mediaType string, raw []byte, tags []string) {
	if doc, err := manifest.Parse(mediaType, raw); err == nil {
		for _, child := range doc.Required() {
			content, known := byDigest[child.Digest]
			switch {
			case !known:
			case manifest.KindOf(child.MediaType) != 0:
				h.pushWhole(t, repo, child.MediaType, []byte(content), nil)
			default:
				h.uploadWhole(t, repo, child.Digest)
			}
		}
	}
	h.push(t, repo, raw, &berth.PushOptions{MediaType: mediaType, Tags: tags})
}

func (h *history) uploadWhole(t *rapid.T, repo string, d digest.Digest) {
	ask(t, h, repo, func(_ int, r berth.Repository) (v1.Descriptor, error) { return put(t, r, d, byDigest[d]) })
}

// put uploads content.
func put(t *rapid.T, r berth.Repository, d digest.Digest, content string) (v1.Descriptor, error) {
	up, err := r.NewUpload(t.Context(), &berth.UploadOptions{Algorithm: d.Algorithm()})
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer up.Close()
	if _, err := io.Copy(up, strings.NewReader(content)); err != nil {
		return v1.Descriptor{}, err
	}
	return up.Commit(t.Context(), d)
}

func (h *history) push(t *rapid.T, repo string, raw []byte, opts *berth.PushOptions) {
	_, err := ask(t, h, repo, func(_ int, r berth.Repository) (v1.Descriptor, error) {
		return r.PushManifest(t.Context(), raw, opts)
	})
	for _, tag := range opts.Tags {
		if err == nil {
			h.movesHere(refName(repo, tag))
		}
	}
}

func (h *history) resolve(t *rapid.T) {
	ref := drawReference(t)
	ask(t, h, drawRepository(t), func(_ int, r berth.Repository) (v1.Descriptor, error) { return r.Resolve(t.Context(), ref) })
}

func (h *history) fetch(t *rapid.T) { h.compareManifest(t, drawRepository(t), drawReference(t)) }

func (h *history) compareManifest(t *rapid.T, repo, ref string) {
	ask(t, h, repo, func(_ int, r berth.Repository) (any, error) {
		m, err := r.FetchManifest(t.Context(), ref, nil)
		return []any{m.Descriptor, string(m.Raw)}, err
	})
}

func (h *history) untag(t *rapid.T) {
	repo, tag := drawRepository(t), drawTag(t)
	opts := draw(t, "options", nil, &berth.UntagOptions{})
	if rarely(t, "if match") {
		opts = &berth.UntagOptions{IfMatch: h.drawMatch(t, repo, tag)}
	}
	_, err := ask(t, h, repo, func(_ int, r berth.Repository) (any, error) { return nil, r.Untag(t.Context(), tag, opts) })
	if err == nil {
		h.movesHere(refName(repo, tag))
	}
}

func (h *history) deleteManifest(t *rapid.T) {
	repo, d := drawRepository(t), drawDigest(t, manifests)
	before := h.modelTags(t)
	_, err := ask(t, h, repo, func(_ int, r berth.Repository) (any, error) { return nil, r.DeleteManifest(t.Context(), d) })
	after := h.modelTags(t)
	for name := range before {
		if after[name] == "" {
			h.movesHere(name)
		}
	}
	if err == nil {
		h.movesHere(repo + "@" + string(d))
	}
}

func (h *history) listTags(t *rapid.T) {
	h.compareTags(t, drawRepository(t), draw(t, "after", append(tags, "", "v", "v1.", "zzz", "\xff")...))
}

func (h *history) compareTags(t *rapid.T, repo, after string) []string {
	all, _ := ask(t, h, repo, func(_ int, r berth.Repository) ([]string, error) { return collect(r.Tags(t.Context(), after)) })
	return all
}

func (h *history) listRepositories(t *rapid.T) {
	h.compareRepositories(t, draw(t, "after", append(repositories, "", "ap", "app/", "zzz", "\xff")...))
}

func (h *history) compareRepositories(t *rapid.T, after string) {
	registries := []berth.Registry{h.layout, h.model}
	ask(t, h, "app", func(side int, _ berth.Repository) ([]string, error) {
		return collect(registries[side].Repositories(t.Context(), after))
	})
}

func (h *history) listReferrers(t *rapid.T) {
	opts := &berth.ReferrersOptions{ArtifactType: draw(t, "type", "", "a/sbom", "a/list", v1.MediaTypeImageConfig, "none")}
	if rarely(t, "after") {
		opts.After = digests[draw(t, "after", "sbom sha256", "list for an image sha256", "absent")]
	}
	h.compareReferrers(t, drawRepository(t), drawDigest(t, manifests), draw(t, "options", nil, opts))
}

func (h *history) compareReferrers(t *rapid.T, repo string, subject digest.Digest, opts *berth.ReferrersOptions) {
	ask(t, h, repo, func(_ int, r berth.Repository) ([]v1.Descriptor, error) {
		return collect(r.Referrers(t.Context(), subject, opts))
	})
}

func (h *history) restart(t *rapid.T) {
	must(t, h.layout.Close())
	h.open(t)
}

// compareAll compares all that can be asked, and what can be mounted.
func (h *history) compareAll(t *rapid.T) {
	h.compare(t)
	for _, d := range inPool.blobs {
		h.compareMount(t, "mounted", d, "")
		ask(t, h, "mounted", func(_ int, r berth.Repository) (any, error) { return nil, r.DeleteBlob(t.Context(), d) })
	}
}

// compare compares all that can be asked without changing anything.
func (h *history) compare(t *rapid.T) {
	h.compareRepositories(t, "")
	for _, repo := range repositories {
		for _, tag := range h.compareTags(t, repo, "") {
			h.compareManifest(t, repo, tag)
		}
		for _, d := range inPool.blobs {
			h.compareBlob(t, repo, d)
		}
		for _, d := range inPool.manifests {
			h.compareManifest(t, repo, string(d))
		}
		for _, d := range inPool.subjects {
			h.compareReferrers(t, repo, d, nil)
		}
	}
}
