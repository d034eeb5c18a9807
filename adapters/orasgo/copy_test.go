package orasgo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	gosync "sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	orasremote "oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/adapters/orasgo"
	"github.com/berthoci/berth/sdk/source"
)

func TestOrasCopiesInAndOut(t *testing.T) {
	served := open(t)
	for name, built := range map[string]source.Source{"platforms": platforms(t), "single": single(t, "one")} {
		t.Run(name, func(t *testing.T) {
			from := layout(t)
			root := fill(t, from, built)
			in := target(t, served, "app/"+name)
			got, err := oras.Copy(t.Context(), from, "v1", in, "v2", oras.DefaultCopyOptions)
			must(t, err)
			if got.Digest != root.Digest {
				t.Errorf("%s was copied, want %s", got.Digest, root.Digest)
			}
			resolved, err := served.Resolve(t.Context(), "app/"+name+":v2")
			must(t, err)
			if resolved.Digest != root.Digest {
				t.Errorf("in berth it is %s, want %s", resolved.Digest, root.Digest)
			}
			want := contents(t, from, root)
			same(t, contents(t, in, root), want)
			to := layout(t)
			_, err = oras.Copy(t.Context(), in, "v2", to, "", oras.DefaultCopyOptions)
			must(t, err)
			out, err := to.Resolve(t.Context(), "v2")
			must(t, err)
			same(t, contents(t, to, out), want)
		})
	}
}

// What is there is copied by its tag alone.
func TestOrasCopiesWhatIsThere(t *testing.T) {
	served := open(t)
	from := layout(t)
	root := fill(t, from, platforms(t))
	to := target(t, served, "app/again")
	for _, tag := range []string{"v1", "v2", string(root.Digest)} {
		copied := 0
		opts := oras.DefaultCopyOptions
		opts.PostCopy = func(context.Context, ocispec.Descriptor) error { copied++; return nil }
		opts.Concurrency = 1
		_, err := oras.Copy(t.Context(), from, "v1", to, tag, opts)
		must(t, err)
		if tag != "v1" && copied != 0 {
			t.Errorf("%d parts were copied to %s, and were there", copied, tag)
		}
		got, err := to.Resolve(t.Context(), tag)
		must(t, err)
		if got.Digest != root.Digest {
			t.Errorf("%s is %s, want %s", tag, got.Digest, root.Digest)
		}
	}
}

func TestOrasCopiesOnePlatform(t *testing.T) {
	served := open(t)
	_, err := served.Push(t.Context(), platforms(t), "app/all:v1", nil)
	must(t, err)
	opts := oras.DefaultCopyOptions
	opts.WithTargetPlatform(&ocispec.Platform{OS: "linux", Architecture: "arm64"})
	to := target(t, served, "app/arm64")
	got, err := oras.Copy(t.Context(), target(t, served, "app/all"), "v1", to, "v1", opts)
	must(t, err)
	if got.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("a %s was copied", got.MediaType)
	}
	if parts := contents(t, to, got); len(parts) != 4 {
		t.Errorf("it has %d parts, want a manifest, a config and two layers", len(parts))
	}
}

func TestOrasCopiesWithAllThatRefers(t *testing.T) {
	served := open(t)
	from := layout(t)
	root := fill(t, from, single(t, "one"))
	signature := attach(t, from, root, "text/signature")
	of := attach(t, from, signature, "text/timestamp")
	attach(t, from, root, "text/sbom")
	in := target(t, served, "app/signed")
	_, err := oras.ExtendedCopy(t.Context(), from, "v1", in, "v1", oras.DefaultExtendedCopyOptions)
	must(t, err)
	to := layout(t)
	_, err = oras.ExtendedCopy(t.Context(), in, "v1", to, "", oras.DefaultExtendedCopyOptions)
	must(t, err)
	for name, place := range map[string]oras.GraphTarget{"in berth": in, "out of it": to} {
		got, err := place.Predecessors(t.Context(), root)
		must(t, err)
		if len(got) != 2 || !slices.ContainsFunc(got, func(d ocispec.Descriptor) bool { return d.Digest == signature.Digest }) {
			t.Errorf("%s the image has %v, want two, with %s", name, got, signature.Digest)
		}
		got, err = place.Predecessors(t.Context(), signature)
		must(t, err)
		if len(got) != 1 || got[0].Digest != of.Digest {
			t.Errorf("%s the signature has %v, want %s", name, got, of.Digest)
		}
	}
	var kinds []string
	must(t, in.Referrers(t.Context(), root, "text/sbom", func(some []ocispec.Descriptor) error {
		for _, desc := range some {
			kinds = append(kinds, desc.ArtifactType+" "+desc.Annotations["kind"])
		}
		return nil
	}))
	if !slices.Equal(kinds, []string{"text/sbom text/sbom"}) {
		t.Errorf("of one artifact type there are %q", kinds)
	}
}

// oras-go's own client reads what a target wrote, and the other way round.
func TestOrasOverHTTP(t *testing.T) {
	served := open(t)
	e := served.Endpoint()
	direct := func(name string) *orasremote.Repository {
		repo, err := orasremote.NewRepository(e.Host + "/" + name)
		must(t, err)
		repo.PlainHTTP = true
		repo.Client = &auth.Client{Credential: auth.StaticCredential(e.Host, auth.Credential{Username: e.Username, Password: e.Password})}
		return repo
	}
	from := layout(t)
	root := fill(t, from, platforms(t))
	attach(t, from, root, "text/signature")
	want := contents(t, from, root)
	_, err := oras.ExtendedCopy(t.Context(), from, "v1", direct("app/first"), "v1", oras.DefaultExtendedCopyOptions)
	must(t, err)
	_, err = oras.ExtendedCopy(t.Context(), target(t, served, "app/first"), "v1", target(t, served, "app/second"), "v1", oras.DefaultExtendedCopyOptions)
	must(t, err)
	second := direct("app/second")
	same(t, contents(t, second, root), want)
	referrers, err := second.Predecessors(t.Context(), root)
	must(t, err)
	if len(referrers) != 1 {
		t.Errorf("the copy has %d referrers", len(referrers))
	}
}

func TestOrasTags(t *testing.T) {
	served := open(t)
	to := target(t, served, "app/tagged")
	root := fill(t, to, single(t, "one"))
	for _, err := range []error{
		second(oras.Tag(t.Context(), to, "v1", "latest")),
		second(oras.TagN(t.Context(), to, string(root.Digest), []string{"a", "b"}, oras.DefaultTagNOptions)),
		to.Tag(t.Context(), root, "plain"),
		to.Tag(t.Context(), root, string(root.Digest)),
	} {
		must(t, err)
	}
	for _, ref := range []string{"v1", "latest", "a", "b", "plain", string(root.Digest), "nonsense@" + string(root.Digest)} {
		desc, raw, err := oras.FetchBytes(t.Context(), to, ref, oras.DefaultFetchBytesOptions)
		if err != nil || desc.Digest != root.Digest || digest.FromBytes(raw) != root.Digest {
			t.Errorf("%s is %s, want %s: %v", ref, desc.Digest, root.Digest, err)
		}
		if desc, err = to.Resolve(t.Context(), ref); err != nil || desc.Digest != root.Digest {
			t.Errorf("%s is resolved to %s, want %s: %v", ref, desc.Digest, root.Digest, err)
		}
	}
	must(t, to.Untag(t.Context(), "a"))
	if _, err := to.Resolve(t.Context(), "a"); err == nil {
		t.Error("a tag that was removed is there")
	}
	must(t, to.Delete(t.Context(), root))
	if _, err := to.Resolve(t.Context(), "b"); err == nil {
		t.Error("a tag of what was deleted is there")
	}
}

func second[T any](_ T, err error) error { return err }

func TestOrasMounts(t *testing.T) {
	served := open(t)
	from := target(t, served, "app/from")
	root := fill(t, from, platforms(t))
	for name, repositories := range map[string][]string{"first": {"app/from"}, "second": {"app/nothing", "app/from"}, "none": {"app/nothing", "app/less"}} {
		mounted, copied := map[string]bool{}, map[string]bool{}
		var mu gosync.Mutex
		note := func(in map[string]bool) func(context.Context, ocispec.Descriptor) error {
			return func(_ context.Context, desc ocispec.Descriptor) error {
				mu.Lock()
				defer mu.Unlock()
				in[string(desc.Digest)] = true
				return nil
			}
		}
		opts := oras.DefaultCopyOptions
		opts.MountFrom = func(context.Context, ocispec.Descriptor) ([]string, error) { return repositories, nil }
		opts.OnMounted, opts.PostCopy = note(mounted), note(copied)
		to := target(t, served, "app/"+name)
		_, err := oras.Copy(t.Context(), from, "v1", to, "v1", opts)
		must(t, err)
		want := contents(t, from, root)
		same(t, contents(t, to, root), want)
		const manifests = 3
		blobs := len(want) - manifests
		if name == "none" && (len(mounted) != 0 || len(copied) != len(want)) || name != "none" && (len(mounted) != blobs || len(copied) != manifests) {
			t.Errorf("%s: of %d blobs %d were mounted, and %d parts were copied", name, blobs, len(mounted), len(copied))
		}
	}
}

func TestManyCopiesAtOnce(t *testing.T) {
	served := open(t)
	from := memory.New()
	root := fill(t, from, platforms(t))
	to := target(t, served, "app/many")
	want := contents(t, from, root)
	var group gosync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			tag := fmt.Sprint("v", i)
			if _, err := oras.Copy(t.Context(), from, "v1", to, tag, oras.DefaultCopyOptions); err != nil {
				t.Error(err)
				return
			}
			back := memory.New()
			if _, err := oras.Copy(t.Context(), to, tag, back, tag, oras.DefaultCopyOptions); err != nil {
				t.Error(err)
				return
			}
			same(t, contents(t, back, root), want)
		})
	}
	group.Wait()
}

// forgetful is a registry that has forgotten the children of an index, which it says are there.
type forgetful struct {
	berth.Repository
	mu      gosync.Mutex // guards the field below
	refused int
	pushed  map[string]int
}

func (f *forgetful) PushManifest(ctx context.Context, raw []byte, opts *berth.PushOptions) (ocispec.Descriptor, error) {
	f.mu.Lock()
	f.pushed[string(opts.Digest)]++
	refuse := opts.MediaType == ocispec.MediaTypeImageIndex && f.refused == 0
	if refuse {
		f.refused++
	}
	f.mu.Unlock()
	if refuse {
		return ocispec.Descriptor{}, errors.Join(fmt.Errorf("a child: %w", berth.ErrManifestBlobUnknown))
	}
	return f.Repository.PushManifest(ctx, raw, opts)
}

// A copy brings the children once more, as it does with registries that oras-go speaks to itself.
func TestOrasMendsWhatIsMissing(t *testing.T) {
	served := open(t)
	from := layout(t)
	root := fill(t, from, platforms(t))
	repo := &forgetful{Repository: repository(t, served, "app/mended"), pushed: map[string]int{}}
	to := orasgo.NewTarget(repo)
	must(t, oras.CopyGraph(t.Context(), from, to, root, oras.DefaultCopyGraphOptions))
	same(t, contents(t, to, root), contents(t, from, root))
	for d, n := range repo.pushed {
		if n != 2 {
			t.Errorf("%s was pushed %d times, want twice", d, n)
		}
	}
}
