package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
)

// acceptManifests is one header: there are registries that read only the first.
func acceptManifests() http.Header {
	types := append(manifest.MediaTypes(), manifest.MediaTypeSchema1Signed, manifest.MediaTypeSchema1)
	return http.Header{"Accept": {strings.Join(types, ", ")}}
}

// Resolve asks for a manifest's descriptor by HEAD, and by GET where the registry's answer to that
// lacks the digest, the size or a media type that was asked for.
func (r *Repository) Resolve(ctx context.Context, ref string) (v1.Descriptor, error) {
	if err := ocirequest.ValidateReference(ref); err != nil {
		return v1.Descriptor{}, err
	}
	e := exchange{request: ocirequest.Request{Kind: ocirequest.ManifestHead, Reference: ref}, header: acceptManifests()}
	resp, err := r.send(ctx, e)
	if r.wantsGet(err) {
		return r.resolveByGet(ctx, ref)
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	drop(resp)
	desc := v1.Descriptor{MediaType: mediaType(resp.Header), Digest: headerDigest(resp.Header), Size: resp.ContentLength}
	if desc.Digest == "" && ocirequest.IsDigest(ref) {
		desc.Digest = digest.Digest(ref)
	}
	if desc.Digest == "" || desc.Size < 0 || !manifest.IsManifest(desc.MediaType) {
		return r.resolveByGet(ctx, ref)
	}
	if ocirequest.IsDigest(ref) && desc.Digest != digest.Digest(ref) {
		return v1.Descriptor{}, r.otherDigest(ref, desc.Digest)
	}
	return desc, nil
}

// wantsGet reports whether a HEAD was refused by a registry that may answer a GET: some do not know it, some say that what is not
// there must not be read.
func (r *Repository) wantsGet(err error) bool {
	var refused *Error
	return errors.As(err, &refused) && (refused.Status == http.StatusMethodNotAllowed || refused.Status == http.StatusForbidden)
}

func (r *Repository) resolveByGet(ctx context.Context, ref string) (v1.Descriptor, error) {
	m, err := r.FetchManifest(ctx, ref, nil)
	return m.Descriptor, err
}

func (r *Repository) otherDigest(ref string, got digest.Digest) error {
	return fmt.Errorf("%s/%s: asked for %s, got %s: %w", r.registry.host, r.name, ref, got, berth.ErrDigestInvalid)
}

func mediaType(h http.Header) string {
	base, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return base
}

// headerDigest is the digest that the registry tells, if it is one.
func headerDigest(h http.Header) digest.Digest {
	d := digest.Digest(strings.ToLower(h.Get("Docker-Content-Digest")))
	if d.Validate() != nil {
		return ""
	}
	return d
}

// FetchManifest downloads a manifest and verifies it: against the digest that was asked for, or
// else against the one that the registry tells.
func (r *Repository) FetchManifest(ctx context.Context, ref string, opts *berth.FetchOptions) (berth.Manifest, error) {
	if err := ocirequest.ValidateReference(ref); err != nil {
		return berth.Manifest{}, err
	}
	e := exchange{request: ocirequest.Request{Kind: ocirequest.ManifestGet, Reference: ref}, header: acceptManifests()}
	resp, raw, err := download(ctx, e, r.send, berth.MaxManifestSize+1)
	if resp == nil {
		return berth.Manifest{}, err
	}
	if err != nil {
		return berth.Manifest{}, fmt.Errorf("%s/%s%s: %w", r.registry.host, r.name, suffix(ref), err)
	}
	desc, err := r.verify(ref, resp.Header, raw)
	if err != nil {
		return berth.Manifest{}, fmt.Errorf("%s/%s%s: %w", r.registry.host, r.name, suffix(ref), err)
	}
	if !opts.Within(desc.Size) {
		raw = nil
	}
	return berth.Manifest{Descriptor: desc, Raw: raw}, nil
}

// verify says what was received, if it is what was asked for.
func (r *Repository) verify(ref string, h http.Header, raw []byte) (v1.Descriptor, error) {
	declared := mediaType(h)
	if !manifest.IsManifest(declared) {
		declared = "" // some servers say text/plain: then the manifest's own word counts
	}
	want := headerDigest(h)
	if ocirequest.IsDigest(ref) {
		want = digest.Digest(ref)
	}
	e, err := schema1.Open(declared, raw)
	switch {
	case err != nil:
		return v1.Descriptor{}, unread(want, raw, err)
	case want == "":
		want = e.Descriptor.Digest
	}
	err = e.Verify(want)
	return e.Descriptor, err
}

// unread is why a manifest that does not parse is refused. Where it is not what was asked for, what is wrong
// in it is of no account.
func unread(want digest.Digest, raw []byte, err error) error {
	if want == "" || errors.Is(err, berth.ErrSizeInvalid) {
		return err
	}
	if mismatch := manifest.Verify(v1.Descriptor{Digest: want, Size: int64(len(raw))}, raw); mismatch != nil {
		return mismatch
	}
	return err
}

func suffix(ref string) string {
	if ocirequest.IsDigest(ref) {
		return "@" + ref
	}
	return ":" + ref
}

// PushManifest uploads a manifest and sets its tags. One that refers to another is brought into the list of referrers where the
// registry does not keep that by itself.
//
// Where a condition is given, the tags are looked at before anything is sent: there are registries that take no notice of
// conditions. At such a one somebody may still move a tag in between.
func (r *Repository) PushManifest(ctx context.Context, raw []byte, opts *berth.PushOptions) (v1.Descriptor, error) {
	if opts == nil {
		opts = &berth.PushOptions{}
	}
	desc, err := r.check(raw, opts)
	if err == nil {
		err = r.unmoved(ctx, opts)
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	return desc, r.push(ctx, desc, raw, opts)
}

// check finds what can be known to be wrong with a push before it begins.
func (r *Repository) check(raw []byte, opts *berth.PushOptions) (v1.Descriptor, error) {
	e, err := schema1.Open(opts.MediaType, raw)
	if err == nil && opts.Digest != "" {
		err = e.Verify(opts.Digest)
	}
	if errors.Is(err, berth.ErrDigestInvalid) && e.Schema1 != nil {
		err = fmt.Errorf("%w: digest mismatch: %w", berth.ErrManifestInvalid, err) // as schema 1 registries report it
	}
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("%s/%s: %w", r.registry.host, r.name, err)
	}
	for _, tag := range opts.Tags {
		if err := berth.ValidateTag(tag); err != nil {
			return v1.Descriptor{}, err
		}
	}
	return e.Descriptor, nil
}

// unmoved looks whether the tags of a push are where its conditions want them.
func (r *Repository) unmoved(ctx context.Context, opts *berth.PushOptions) (err error) {
	for _, tag := range opts.Tags {
		if opts.IfNoneMatch {
			err = r.stillAt(ctx, tag, "")
		}
		if err == nil && opts.IfMatch != "" {
			err = r.stillAt(ctx, tag, opts.IfMatch)
		}
		if errors.Is(err, berth.ErrManifestUnknown) {
			return r.elsewhere(tag, "not there")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stillAt looks whether a tag is where a condition wants it: at that digest, or nowhere if there is none. A registry that is known
// to keep to conditions is not asked.
func (r *Repository) stillAt(ctx context.Context, tag string, want digest.Digest) error {
	if r.registry.learnt.conditions.isYes() {
		return nil
	}
	desc, err := r.Resolve(ctx, tag)
	switch {
	case want == "" && errors.Is(err, berth.ErrManifestUnknown):
		return nil
	case err == nil && desc.Digest != want:
		return r.elsewhere(tag, string(desc.Digest))
	}
	return err
}

// elsewhere is the error for a condition that does not hold.
func (r *Repository) elsewhere(tag, now string) error {
	err := fmt.Errorf("%w: it is %s", berth.ErrPreconditionFailed, now)
	if r.registry.name != "" { // then its address means nothing
		return err
	}
	return fmt.Errorf("%s/%s:%s: %w", r.registry.host, r.name, tag, err)
}

func (r *Repository) push(ctx context.Context, desc v1.Descriptor, raw []byte, opts *berth.PushOptions) error {
	answer, err := r.put(ctx, desc, raw, opts)
	if err != nil {
		return err
	}
	return r.listReferrer(ctx, desc, raw, answer)
}

// put sends the manifest once, and once more for each tag that the registry did not take along. It returns the header of the
// first answer.
func (r *Repository) put(ctx context.Context, desc v1.Descriptor, raw []byte, opts *berth.PushOptions) (http.Header, error) {
	header := conditions(opts)
	header.Set("Content-Type", desc.MediaType)
	answer, rest, err := r.putFirst(ctx, desc, raw, opts.Tags, header)
	if err != nil {
		return nil, err
	}
	taken := acceptedTags(answer)
	for _, tag := range rest {
		if slices.Contains(taken, tag) {
			continue
		}
		req := ocirequest.Request{Kind: ocirequest.ManifestPut, Reference: tag}
		if _, err := r.putOne(ctx, exchange{request: req, header: header}, desc, raw); err != nil {
			return nil, err
		}
	}
	return answer, nil
}

// putFirst sends the manifest once. Whether the registry takes several tags along is found out by one who has some, for whom the
// others wait.
func (r *Repository) putFirst(ctx context.Context, desc v1.Descriptor, raw []byte, tags []string, header http.Header) (http.Header, []string, error) {
	several := &r.registry.learnt.tagParameters
	if len(tags) > 1 {
		done, err := several.ask(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer done()
	}
	req, rest := r.firstPut(desc, tags)
	answer, err := r.putOne(ctx, exchange{request: req, header: header}, desc, raw)
	if err == nil && len(req.Tags) > 0 {
		several.learn(len(acceptedTags(answer)) > 0)
	}
	return answer, rest, err
}

// firstPut is the first request, and the tags that it does not set by itself. A digest of another algorithm than sha256 has to
// be named.
func (r *Repository) firstPut(desc v1.Descriptor, tags []string) (ocirequest.Request, []string) {
	byTag := len(tags) == 1 || r.registry.learnt.tagParameters.isNo() && len(tags) > 1
	if byTag && desc.Digest.Algorithm() == digest.SHA256 {
		return ocirequest.Request{Kind: ocirequest.ManifestPut, Reference: tags[0]}, tags[1:]
	}
	return ocirequest.Request{Kind: ocirequest.ManifestPut, Reference: string(desc.Digest), Tags: tags}, tags
}

func conditions(opts *berth.PushOptions) http.Header {
	header := http.Header{}
	if opts.IfMatch != "" {
		header.Set("If-Match", `"`+string(opts.IfMatch)+`"`)
	}
	if opts.IfNoneMatch {
		header.Set("If-None-Match", "*")
	}
	return header
}

func (r *Repository) putOne(ctx context.Context, e exchange, desc v1.Descriptor, raw []byte) (http.Header, error) {
	e.body, e.length = bytes.NewReader(raw), int64(len(raw))
	e.again = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	resp, err := r.send(ctx, e)
	if err != nil {
		return nil, err
	}
	drop(resp)
	told := headerDigest(resp.Header)
	if told == "" || told.Algorithm() != desc.Digest.Algorithm() {
		r.registry.learnt.silent.learn(true)
	}
	if told != "" && told != desc.Digest && told.Algorithm() == desc.Digest.Algorithm() {
		return nil, r.otherDigest(string(desc.Digest), told)
	}
	return resp.Header, nil
}

// Confirms reports whether the registry has told the digest of each manifest that was pushed to it, so that it is known to have
// taken what it was given.
func (r *Repository) Confirms() bool { return !r.registry.learnt.silent.isYes() }

// acceptedTags reads the OCI-Tag headers ("Pushing Manifests").
func acceptedTags(h http.Header) (tags []string) {
	for _, value := range h.Values("OCI-Tag") {
		for tag := range strings.SplitSeq(value, ",") {
			tags = append(tags, strings.TrimSpace(tag))
		}
	}
	return tags
}

// DeleteManifest deletes a manifest by its digest.
func (r *Repository) DeleteManifest(ctx context.Context, d digest.Digest) error {
	if err := berth.ValidateDigest(d); err != nil {
		return err
	}
	if err := r.unlistReferrer(ctx, d); err != nil {
		return err
	}
	return r.delete(ctx, string(d), http.Header{})
}

// Untag deletes a tag. One that is to be deleted under a condition is looked at before, as it is by PushManifest.
func (r *Repository) Untag(ctx context.Context, tag string, opts *berth.UntagOptions) error {
	if err := berth.ValidateTag(tag); err != nil {
		return err
	}
	header := http.Header{}
	if opts != nil && opts.IfMatch != "" {
		header = conditions(&berth.PushOptions{IfMatch: opts.IfMatch})
		if err := r.stillAt(ctx, tag, opts.IfMatch); err != nil {
			return err
		}
	}
	err := r.delete(ctx, tag, header)
	if errors.Is(err, berth.ErrDigestInvalid) { // version 2 of the distribution registry takes digests alone
		return fmt.Errorf("%w: the registry cannot remove a tag and leave the image: %w", berth.ErrUnsupported, err)
	}
	return err
}

func (r *Repository) delete(ctx context.Context, ref string, header http.Header) error {
	e := exchange{request: ocirequest.Request{Kind: ocirequest.ManifestDelete, Reference: ref}, header: header}
	resp, err := r.send(ctx, e)
	if err != nil {
		return err
	}
	return drop(resp)
}
