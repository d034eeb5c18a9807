package orasgo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/orasgo"
	"github.com/berthoci/berth/manifest"
)

func TestWhatIsMissing(t *testing.T) {
	served := open(t)
	to := target(t, served, "app/missing")
	const text = "nothing"
	blob := manifest.Descriptor(ocispec.MediaTypeImageLayer, []byte(text))
	image := manifest.Descriptor(ocispec.MediaTypeImageManifest, []byte(text))
	for _, desc := range []ocispec.Descriptor{blob, image} {
		if there, err := to.Exists(t.Context(), desc); there || err != nil {
			t.Errorf("%s exists: %v, %v", desc.MediaType, there, err)
		}
	}
	for what, err := range map[string]error{
		"blob": second(to.Fetch(t.Context(), blob)), "to delete a blob": to.Delete(t.Context(), blob),
	} {
		wants(t, what, err, errdef.ErrNotFound, berth.ErrBlobUnknown)
	}
	_, _, fetched := to.FetchReference(t.Context(), "v1")
	for what, err := range map[string]error{
		"manifest": second(to.Fetch(t.Context(), image)), "to delete a manifest": to.Delete(t.Context(), image),
		"tag": second(to.Resolve(t.Context(), "v1")), "digest": second(to.Resolve(t.Context(), string(image.Digest))),
		"to fetch a tag": fetched, "to tag": to.Tag(t.Context(), image, "v1"), "to untag": to.Untag(t.Context(), "v1"),
	} {
		wants(t, what, err, errdef.ErrNotFound, berth.ErrManifestUnknown)
	}
	wants(t, "tags", to.Tags(t.Context(), "", func([]string) error { return nil }), errdef.ErrNotFound, berth.ErrNameUnknown)
	_, err := oras.Copy(t.Context(), to, "v1", memory.New(), "", oras.DefaultCopyOptions)
	wants(t, "a copy", err, errdef.ErrNotFound, berth.ErrManifestUnknown)
	wants(t, "a manifest without its children", to.Push(t.Context(), manifest.Descriptor(ocispec.MediaTypeImageManifest, []byte(orphan)), strings.NewReader(orphan)), berth.ErrManifestBlobUnknown)
}

// orphan is a manifest of which nothing else is there.
const orphan = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`

func TestWhatHasAnotherSize(t *testing.T) {
	to := target(t, open(t), "app/size")
	desc := pushBytes(t, to, ocispec.MediaTypeImageLayer, "content")
	desc.Size++
	if there, err := to.Exists(t.Context(), desc); there || err != nil {
		t.Errorf("it exists: %v, %v", there, err)
	}
	_, err := to.Fetch(t.Context(), desc)
	wants(t, "it", err, errdef.ErrNotFound, berth.ErrBlobUnknown)
}

func TestWhatIsNoReference(t *testing.T) {
	served := open(t)
	to := target(t, served, "app/reference")
	root := fill(t, to, single(t, "one"))
	other := "sha256:" + strings.Repeat("0", 64)
	for reference, want := range map[string]error{
		"":              errdef.ErrMissingReference,
		"no tag":        errdef.ErrInvalidReference,
		"sha256:what":   errdef.ErrInvalidReference,
		"v1@v1":         errdef.ErrInvalidReference,
		"v1@sha256:foo": errdef.ErrInvalidReference,
	} {
		wants(t, fmt.Sprintf("to resolve %q", reference), second(to.Resolve(t.Context(), reference)), want)
		_, _, err := to.FetchReference(t.Context(), reference)
		wants(t, fmt.Sprintf("to fetch %q", reference), err, want)
		wants(t, fmt.Sprintf("to tag %q", reference), to.Tag(t.Context(), root, reference), want)
		wants(t, fmt.Sprintf("to push to %q", reference), to.PushReference(t.Context(), root, strings.NewReader(""), reference), want)
	}
	wants(t, "no tag", to.Untag(t.Context(), "no tag"), errdef.ErrInvalidReference, berth.ErrTagInvalid)
	wants(t, "no reference", to.Untag(t.Context(), ""), errdef.ErrMissingReference)
	wants(t, "to tag by another digest", to.Tag(t.Context(), root, other), errdef.ErrInvalidReference)
	wants(t, "to tag by a tag with a digest", to.Tag(t.Context(), root, "v2@"+other), errdef.ErrInvalidReference)
	blob := pushBytes(t, to, ocispec.MediaTypeImageLayer, "content")
	wants(t, "to tag a blob", to.Tag(t.Context(), blob, "v2"), errdef.ErrUnsupported, berth.ErrUnsupported)
	wants(t, "to push a blob to a tag", to.PushReference(t.Context(), blob, strings.NewReader("content"), "v2"), errdef.ErrUnsupported)
}

func TestWhatIsNoDigest(t *testing.T) {
	to := target(t, open(t), "app/digest")
	for _, mediaType := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageManifest} {
		desc := ocispec.Descriptor{MediaType: mediaType, Digest: "what"}
		for what, err := range map[string]error{
			"fetch": second(to.Fetch(t.Context(), desc)), "exists": second(to.Exists(t.Context(), desc)),
			"push": to.Push(t.Context(), desc, strings.NewReader("")), "tag": to.Tag(t.Context(), desc, "v1"),
			"push to a tag": to.PushReference(t.Context(), desc, strings.NewReader(""), "v1"),
			"delete":        to.Delete(t.Context(), desc), "mount": to.Mount(t.Context(), desc, "app/other", nil),
			"referrers": to.Referrers(t.Context(), desc, "", nil),
		} {
			wants(t, what+" of a "+mediaType, err, errdef.ErrInvalidDigest, berth.ErrDigestInvalid)
		}
	}
}

// counting is a repository that knows how many uploads are under way.
type counting struct {
	berth.Repository
	open int
}

func (c *counting) NewUpload(ctx context.Context, opts *berth.UploadOptions) (berth.Upload, error) {
	up, err := c.Repository.NewUpload(ctx, opts)
	if err == nil {
		c.open++
	}
	return countedUpload{up, c}, err
}

type countedUpload struct {
	berth.Upload
	in *counting
}

func (u countedUpload) Commit(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	u.in.open--
	return u.Upload.Commit(ctx, d)
}

func (u countedUpload) Cancel(ctx context.Context) error {
	err := u.Upload.Cancel(ctx)
	if err == nil {
		u.in.open--
	}
	return err
}

var errBroken = errors.New("the line is cut")

func TestWhatIsPushedIsVerified(t *testing.T) {
	repo := &counting{Repository: repository(t, open(t), "app/verified")}
	to := orasgo.NewTarget(repo)
	pushBytes(t, to, ocispec.MediaTypeEmptyJSON, "{}")
	for _, mediaType := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageManifest} {
		desc := manifest.Descriptor(mediaType, []byte(orphan))
		for what, text := range map[string]string{
			"other bytes": strings.Replace(orphan, `"layers":[]`, `"layers": `, 1), "fewer": orphan[1:], "more": orphan + " ", "none": "",
		} {
			err := to.Push(t.Context(), desc, strings.NewReader(text))
			wants(t, what+" as "+mediaType, err, content.ErrMismatchedDigest, berth.ErrDigestInvalid)
		}
		broken := io.MultiReader(strings.NewReader(orphan[:10]), brokenReader{})
		wants(t, "a reader that fails", to.Push(t.Context(), desc, broken), errBroken)
		if there, err := to.Exists(t.Context(), desc); there || err != nil {
			t.Errorf("what was refused exists: %v, %v", there, err)
		}
		must(t, to.Push(t.Context(), desc, strings.NewReader(orphan)))
		must(t, to.Push(t.Context(), desc, strings.NewReader(orphan)))
	}
	huge := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(""), Size: berth.MaxManifestSize + 1}
	wants(t, "a huge manifest", to.Push(t.Context(), huge, strings.NewReader("")), errdef.ErrSizeExceedsLimit, berth.ErrSizeInvalid)
	if repo.open != 0 {
		t.Errorf("%d uploads are left", repo.open)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errBroken }

func TestAPushThatIsCancelled(t *testing.T) {
	repo := &counting{Repository: repository(t, open(t), "app/cancelled")}
	ctx, cancel := context.WithCancel(t.Context())
	desc := manifest.Descriptor(ocispec.MediaTypeImageLayer, []byte("content"))
	from := io.MultiReader(strings.NewReader("con"), readerFunc(func([]byte) (int, error) { cancel(); return 0, ctx.Err() }))
	wants(t, "a push", orasgo.NewTarget(repo).Push(ctx, desc, from), context.Canceled)
	if repo.open != 0 {
		t.Errorf("%d uploads are left", repo.open)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAMountThatDoesNotWork(t *testing.T) {
	repo := &counting{Repository: repository(t, open(t), "app/mount")}
	to := orasgo.NewTarget(repo)
	desc := manifest.Descriptor(ocispec.MediaTypeImageLayer, []byte("content"))
	wants(t, "without content", to.Mount(t.Context(), desc, "app/other", nil), errdef.ErrUnsupported)
	err := to.Mount(t.Context(), desc, "app/other", func() (io.ReadCloser, error) { return nil, errBroken })
	wants(t, "content that fails", err, errBroken)
	err = to.Mount(t.Context(), desc, "app/other", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("others.")), nil })
	wants(t, "other content", err, content.ErrMismatchedDigest)
	must(t, to.Mount(t.Context(), desc, "app/other", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("content")), nil }))
	raw, err := content.FetchAll(t.Context(), to, desc)
	if string(raw) != "content" || err != nil {
		t.Errorf("it is %q: %v", raw, err)
	}
	if repo.open != 0 {
		t.Errorf("%d uploads are left", repo.open)
	}
}

func TestListsComeInPages(t *testing.T) {
	served := open(t)
	to := target(t, served, "app/listed")
	root := fill(t, to, single(t, "one"))
	raw, err := content.FetchAll(t.Context(), to, root)
	must(t, err)
	var want []string
	for i := range 250 {
		want = append(want, fmt.Sprintf("t%03d", i))
	}
	_, err = repository(t, served, "app/listed").PushManifest(t.Context(), raw, &berth.PushOptions{MediaType: root.MediaType, Tags: want})
	must(t, err)
	all, err := registry.Tags(t.Context(), to)
	must(t, err)
	if !slices.Equal(all, append(slices.Clone(want), "v1")) {
		t.Errorf("the tags are %q", all)
	}
	var pages []int
	var after []string
	must(t, to.Tags(t.Context(), "t009", func(some []string) error {
		pages, after = append(pages, len(some)), append(after, some...)
		return nil
	}))
	if len(pages) < 2 || !slices.Equal(after, append(want[10:], "v1")) {
		t.Errorf("after the tenth, in %v, they are %q", pages, after)
	}
	calls := 0
	err = to.Tags(t.Context(), "", func([]string) error { calls++; return errBroken })
	wants(t, "a list that is ended", err, errBroken)
	if calls != 1 {
		t.Errorf("it went on for %d pages", calls)
	}
	must(t, to.Tags(t.Context(), "v1", func(some []string) error { t.Errorf("after the last there is %q", some); return nil }))
	got, err := to.Predecessors(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: root.Digest})
	if len(got) != 0 || err != nil {
		t.Errorf("a blob has predecessors %v: %v", got, err)
	}
}

func TestASourceIsPushed(t *testing.T) {
	served := open(t)
	from := memory.New()
	root := fill(t, from, platforms(t))
	src := orasgo.Source(from, root)
	pushed, err := served.Push(t.Context(), src, "app/pushed:v1", nil)
	must(t, err)
	if pushed.Descriptor.Digest != root.Digest {
		t.Errorf("it was pushed as %s, want %s", pushed.Descriptor.Digest, root.Digest)
	}
	must(t, src.Close())
	nothing := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("nothing"), Size: 7}
	_, err = src.Fetch(t.Context(), nothing)
	wants(t, "what a store lacks", err, berth.ErrBlobUnknown, errdef.ErrNotFound)
	if !strings.Contains(err.Error(), string(nothing.Digest)) {
		t.Errorf("the error does not say what is missing: %v", err)
	}
	_, err = orasgo.Source(target(t, served, "app/pushed"), root).Fetch(t.Context(), nothing)
	wants(t, "what a target lacks", err, berth.ErrBlobUnknown, errdef.ErrNotFound)
	partial := memory.New()
	raw, err := content.FetchAll(t.Context(), from, root)
	must(t, err)
	must(t, partial.Push(t.Context(), root, bytes.NewReader(raw)))
	_, err = served.Push(t.Context(), orasgo.Source(partial, root), "app/partial:v1", nil)
	wants(t, "an index without its images", err, berth.ErrBlobUnknown, errdef.ErrNotFound)
}
