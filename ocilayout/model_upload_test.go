package ocilayout_test

import (
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

// resting is an upload that was left for later.
type resting struct {
	repo string
	plan plan
	ids  [2]string // the layout's and the model's
}

// plan is what a client does with an upload, drawn before it is done to both sides.
type plan struct {
	content string
	stops   []int // lengths at which the client closes the upload and resumes it
	end     string
	commit  digest.Digest
}

// outcome is what the client saw.
type outcome struct {
	Descriptor v1.Descriptor
	Sizes      []int64
	End, After string
	id         string
}

func drawPlan(t *rapid.T, content string, from int) plan {
	p := plan{content: content, end: draw(t, "end", "commit", "commit", "leave", "cancel")}
	p.stops = rapid.SliceOfN(rapid.IntRange(from, len(content)), 0, 2).Draw(t, "stops")
	slices.Sort(p.stops)
	if p.end != "leave" {
		p.stops = append(p.stops, len(content))
	}
	p.commit = draw(t, "algorithm", algorithms...).FromString(content)
	if rarely(t, "wrong digest") {
		p.commit = drawDigest(t, blobs)
	}
	return p
}

func (p plan) run(t *rapid.T, r berth.Repository, up berth.Upload) (o outcome, err error) {
	defer func() { up.Close() }()
	o.id = up.ID()
	for _, stop := range p.stops {
		if _, err := io.WriteString(up, p.content[up.Size():stop]); err != nil {
			return o, err
		}
		up.Close()
		if up, err = r.ResumeUpload(t.Context(), o.id); err != nil {
			return o, err
		}
		o.Sizes = append(o.Sizes, up.Size())
	}
	switch p.end {
	case "leave":
		return o, up.Close()
	case "cancel":
		err = up.Cancel(t.Context())
	default:
		o.Descriptor, err = up.Commit(t.Context(), p.commit)
	}
	o.End = show(o.Descriptor, err)
	up.Close()
	_, err = r.ResumeUpload(t.Context(), o.id)
	o.After = show(nil, err)
	return o, nil
}

func (h *history) upload(t *rapid.T) {
	p := drawPlan(t, contents[draw(t, "blob", blobs...)], 0)
	opts := &berth.UploadOptions{
		Algorithm: draw(t, "announced", "", digest.SHA256, digest.SHA512, "md5"),
		Size:      draw(t, "hint", 0, -1, int64(len(p.content)), 7),
	}
	h.carry(t, drawRepository(t), p, func(_ int, r berth.Repository) (berth.Upload, error) {
		return r.NewUpload(t.Context(), opts)
	})
}

func (h *history) continueUpload(t *rapid.T) {
	if len(h.resting) == 0 {
		t.Skip("no upload rests")
	}
	i := rapid.IntRange(0, len(h.resting)-1).Draw(t, "upload")
	up := h.resting[i]
	h.resting = slices.Delete(h.resting, i, i+1)
	size, _ := ask(t, h, up.repo, func(side int, r berth.Repository) (int64, error) {
		resumed, err := r.ResumeUpload(t.Context(), up.ids[side])
		if err != nil {
			return 0, err
		}
		return resumed.Size(), resumed.Close()
	})
	h.carry(t, up.repo, drawPlan(t, up.plan.content, int(size)), func(side int, r berth.Repository) (berth.Upload, error) {
		return r.ResumeUpload(t.Context(), up.ids[side])
	})
}

// carry carries a plan out.
func (h *history) carry(t *rapid.T, repo string, p plan, begin func(side int, r berth.Repository) (berth.Upload, error)) {
	var ids [2]string
	_, err := ask(t, h, repo, func(side int, r berth.Repository) (outcome, error) {
		up, err := begin(side, r)
		if err != nil {
			return outcome{}, err
		}
		ids[side] = up.ID()
		return p.run(t, r, up)
	})
	if err == nil && p.end == "leave" {
		h.resting = append(h.resting, resting{repo, p, ids})
	}
}

func (h *history) resumeWrongly(t *rapid.T) {
	repo, id := drawRepository(t), draw(t, "id", "of another repository", "", "../../index.json", "sha256-"+strings.Repeat("a", 26))
	ask(t, h, repo, func(side int, r berth.Repository) (any, error) {
		if len(h.resting) > 0 && h.resting[0].repo != repo && id == "of another repository" {
			return r.ResumeUpload(t.Context(), h.resting[0].ids[side])
		}
		return r.ResumeUpload(t.Context(), id)
	})
}

func (h *history) mount(t *rapid.T) {
	from := draw(t, "from", append([]string{"", "", "none", "No Name"}, repositories...)...)
	h.compareMount(t, drawRepository(t), drawDigest(t, append(slices.Concat(blobs, blobs, blobs), manifests...)), from)
}

func (h *history) compareMount(t *rapid.T, repo string, d digest.Digest, from string) {
	opts := &berth.UploadOptions{Mount: d, From: from}
	ask(t, h, repo, func(_ int, r berth.Repository) (string, error) {
		up, err := r.NewUpload(t.Context(), opts)
		if err != nil {
			return "", err
		}
		return "an upload", up.Cancel(t.Context())
	})
}

func (h *history) statBlob(t *rapid.T) {
	d := drawDigest(t, slices.Concat(blobs, manifests))
	ask(t, h, drawRepository(t), func(_ int, r berth.Repository) (v1.Descriptor, error) { return r.StatBlob(t.Context(), d) })
}

func (h *history) openBlob(t *rapid.T) {
	h.compareBlob(t, drawRepository(t), drawDigest(t, slices.Concat(blobs, manifests)))
}

func (h *history) compareBlob(t *rapid.T, repo string, d digest.Digest) {
	ask(t, h, repo, func(_ int, r berth.Repository) (any, error) {
		blob, err := r.OpenBlob(t.Context(), d)
		if err != nil {
			return nil, err
		}
		defer blob.Close()
		content, err := digest.FromReader(blob)
		return []any{blob.Descriptor(), content}, err
	})
}

func (h *history) deleteBlob(t *rapid.T) {
	d := drawDigest(t, blobs)
	ask(t, h, drawRepository(t), func(_ int, r berth.Repository) (any, error) { return nil, r.DeleteBlob(t.Context(), d) })
}
