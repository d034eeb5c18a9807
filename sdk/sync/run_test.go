package sync_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/sdk/sync"
	"github.com/berthoci/berth/server"
)

func TestRunDoesWhatMakeAndApplyDo(t *testing.T) {
	from, selection := shelf(t), sync.Selection{Patterns: []string{"**"}, Referrers: true}
	places := func() []sync.To {
		one, other := serve(t), serve(t)
		return []sync.To{{Registry: one}, {Registry: other, Prefix: "a"}, {Registry: other, Prefix: "b"}}
	}
	apart, atOnce := places(), places()
	plan, err := sync.Make(t.Context(), from, apart, selection)
	must(t, err)
	_, err = sync.Apply(t.Context(), from, apart, plan, nil)
	must(t, err)
	report, err := sync.Run(t.Context(), from, atOnce, selection, nil)
	must(t, err)
	if len(report.Items) != len(plan.Items) {
		t.Fatalf("%d items were reported, %d planned", len(report.Items), len(plan.Items))
	}
	for i, r := range report.Items {
		want := plan.Items[i]
		if r.Source != want.Source || r.Target != want.Target || r.Change != want.Change || r.Descriptor.Digest != want.Descriptor.Digest {
			t.Errorf("%d: got %+v, want %+v", i, r.Item, want)
		}
	}
	again, err := sync.Make(t.Context(), from, atOnce, selection)
	if err != nil || len(again.Drift()) != 0 {
		t.Errorf("what differs afterwards: %+v, %v", again.Drift(), err)
	}
}

func TestRunBeginsNoMoreWhereARegistryCannotBeAsked(t *testing.T) {
	from, to := shelf(t), serve(t)
	images := store{}
	images.push(t, to, "base", images.image(images.layer("superfluous")), "old")
	to.refuse = func(r *http.Request) bool {
		return r.Method == http.MethodHead && strings.HasPrefix(r.URL.Path, "/v2/app/web/manifests/")
	}
	selection := sync.Selection{Patterns: []string{"app/web:v1", "app/api", "base"}, Prune: true}
	report, err := sync.Run(t.Context(), from, at(to), selection, nil)
	if err == nil || !strings.Contains(err.Error(), to.Host()+"/app/web:v1") {
		t.Errorf("got %v", err)
	}
	if report != nil && slices.ContainsFunc(report.Items, func(r sync.Result) bool {
		return r.Error == "" && (r.Source == "app/web:v1" || r.Change == sync.Removed || r.Change == sync.Unknown)
	}) {
		t.Errorf("it does not report what was not done: %+v", report)
	}
	if !slices.Contains(tagsOf(t, to.layout, "base"), "old") {
		t.Error("a tag was removed, though something else had failed")
	}
	to.refuseFrom(func(*http.Request) bool { return true })
	if report, err = sync.Run(t.Context(), from, at(to), selection, nil); err == nil || report != nil {
		t.Errorf("where nothing was begun: %+v, %v", report, err)
	}
}

func TestRunThatIsCancelled(t *testing.T) {
	from, to := shelf(t), serve(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opts := &sync.ApplyOptions{Parallel: 1, Progress: func(e sync.Event) {
		if e.Descriptor.MediaType == v1.MediaTypeImageManifest {
			cancel()
		}
	}}
	report, err := sync.Run(ctx, from, at(to), sync.Selection{Patterns: []string{"**"}}, opts)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %+v, %v", report, err)
	}
	done := 0
	for _, r := range report.Items {
		if r.Error == "" {
			done++
		}
	}
	if done == 0 || done == 7 {
		t.Errorf("%d of the tags were brought: %+v", done, report)
	}
	if _, err = sync.Run(t.Context(), from, at(to), sync.Selection{Patterns: []string{"**"}}, nil); err != nil {
		t.Error(err)
	}
}

func TestPatternsWithDigests(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	was := images.image(images.layer("before"))
	images.push(t, from, "app/web", was, "v1")
	images.push(t, from, "app/web", images.image(images.layer("after")), "v1")
	pinned := string(was.Digest)
	report, err := sync.Run(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web@" + pinned, "app/web:v1@" + pinned}}, nil)
	must(t, err)
	var targets []string
	for _, r := range report.Items {
		targets = append(targets, r.Source+" "+r.Target)
	}
	if want := []string{"app/web@" + pinned + " app/web@" + pinned, "app/web:v1@" + pinned + " app/web:v1"}; !slices.Equal(targets, want) {
		t.Errorf("got %q, want %q", targets, want)
	}
	for _, name := range []string{"v1", pinned} {
		if got, err := to.open(t, "app/web").Resolve(t.Context(), name); err != nil || got.Digest != was.Digest {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]error{
		"app/none@" + pinned:            sync.ErrNothing,
		"base:latest@" + pinned:         sync.ErrNothing,
		"app/*@" + pinned:               berth.ErrNameInvalid,
		"app/web@sha256:12":             berth.ErrDigestInvalid,
		"app/web:v*@" + pinned:          berth.ErrTagInvalid,
		"app/web@" + pinned + " base:v": sync.ErrNothing,
	} {
		if _, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: strings.Fields(text)}); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", text, err, want)
		}
	}
	both := sync.Selection{Patterns: []string{"app/web:v1", "app/web:v1@" + pinned}}
	if _, err := sync.Make(t.Context(), from, at(to), both); !errors.Is(err, berth.ErrTagInvalid) {
		t.Errorf("one tag that would be two images: got %v", err)
	}
}

func TestTheMatcherTakesDigestsForNoTags(t *testing.T) {
	digest := string(store{}.layer("any").Digest)
	matches, err := sync.Selection{}.Matcher([]string{"app:v1@" + digest, "base"})
	if err != nil || matches("app", "v1") || !matches("base", "v1") {
		t.Errorf("got %v", err)
	}
}

func TestTagsThatHoldReferrersAreNoTagsOfImages(t *testing.T) {
	from, to, images := local(t), serve(t), store{}
	image := images.image(images.layer("one"))
	held := strings.Replace(string(image.Digest), ":", "-", 1)
	images.push(t, from, "app", image, "v1", held, "sha256-short")
	for pattern, want := range map[string][]string{
		"app":         {"app:sha256-short", "app:v1"},
		"app:" + held: {"app:" + held},
	} {
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{pattern}})
		if err != nil || !slices.Equal(sources(plan), want) {
			t.Errorf("%s: got %q, %v", pattern, sources(plan), err)
		}
	}
}

// keeper says that it has everything, as a registry may that has it in a repository that nobody knows of.
type keeper struct {
	*served
	has func(v1.Descriptor) bool
}

func (k keeper) Keeps(desc v1.Descriptor) bool { return k.has(desc) }

func TestWhatADestinationKeepsIsMountedFromWhereverItIs(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	images.push(t, to, "elsewhere", images.image(images.layer("shared")), "v1")
	shared := images.layer("shared")
	for what, has := range map[string]func(v1.Descriptor) bool{
		"base":    func(desc v1.Descriptor) bool { return desc.Digest == shared.Digest },
		"app/api": func(v1.Descriptor) bool { return true }, // which is not so
	} {
		place := []sync.To{{Registry: keeper{to, has}}}
		selection := sync.Selection{Patterns: []string{what}}
		plan, err := sync.Make(t.Context(), from, place, selection)
		must(t, err)
		mounts := slices.DeleteFunc(plan.Transfers, func(t sync.Transfer) bool { return t.Action != sync.Mounted })
		report, err := sync.Run(t.Context(), from, place, selection, nil)
		if err != nil || len(mounts) == 0 || report.Total.Mounted == 0 || report.Total.Sent == 0 {
			t.Errorf("%s: planned %+v, did %+v, %v", what, mounts, report, err)
		}
	}
}

func TestAMemoryOfUploadsAlone(t *testing.T) {
	from, to := shelf(t), serve(t)
	memory, err := sync.OpenUploads(filepath.Join(t.TempDir(), "journal"))
	must(t, err)
	place := []sync.To{{Registry: to, Memory: memory}}
	selection := sync.Selection{Patterns: []string{"base"}}
	_, err = sync.Run(t.Context(), from, place, selection, nil)
	must(t, err)
	repo := to.open(t, "base")
	m, err := repo.FetchManifest(t.Context(), "latest", nil)
	must(t, err)
	must(t, repo.DeleteManifest(t.Context(), m.Descriptor.Digest))
	to.sent()
	report, err := sync.Run(t.Context(), from, place, selection, nil)
	if err != nil || report.Items[0].Change != sync.New {
		t.Errorf("it was not asked what is there: %+v, %v", report, err)
	}
	must(t, memory.Close())
}

func TestAPlaceThatCannotBeAskedDoesNotHoldBackAnother(t *testing.T) {
	from, good, bad := shelf(t), serve(t), serve(t)
	bad.refuse = func(*http.Request) bool { return true }
	places := []sync.To{{Registry: bad}, {Registry: good}}
	selection := sync.Selection{Patterns: []string{"app/*:v1"}}
	plan, err := sync.Make(t.Context(), from, places, selection)
	if err == nil || plan == nil || len(plan.Items) != 2 || plan.Items[0].Host != good.Host() {
		t.Errorf("the plan is %+v, %v", plan, err)
	}
	report, err := sync.Run(t.Context(), from, places, selection, nil)
	if err == nil || len(report.Items) != 4 {
		t.Fatalf("got %+v, %v", report, err)
	}
	for _, r := range report.Items {
		failed := r.Host == bad.Host()
		if failed != (r.Error != "") || failed != (r.Change == sync.Unknown) {
			t.Errorf("got %+v", r)
		}
	}
}

// Others make the tags of signatures and of lists of referrers too, and what never changes stays.
func TestPruneSparesWhatIsNotItsOwn(t *testing.T) {
	from, to, images := shelf(t), serve(t), store{}
	old := images.image(images.layer("superfluous"))
	held := strings.Replace(string(old.Digest), ":", "-", 1)
	images.push(t, to, "app/web", old, "gone", "fixed-1", held, held+".sig", held+".att", held+".sbom", held+".other")
	selection := sync.Selection{Patterns: []string{"app/web"}, Prune: true, Immutable: []string{"app/web:fixed-*"}}
	plan, err := sync.Make(t.Context(), from, at(to), selection)
	must(t, err)
	var removed []string
	for _, item := range plan.Items {
		if item.Change == sync.Removed {
			removed = append(removed, item.Target)
		}
	}
	if want := []string{"app/web:gone", "app/web:" + held + ".other"}; !slices.Equal(removed, want) {
		t.Errorf("%q would be removed, want %q", removed, want)
	}
}

func TestPruneUnderOtherNames(t *testing.T) {
	from, images := shelf(t), store{}
	for template, want := range map[string]string{
		"{name}:{tag}-x":            "web:gone-x",
		"{repository}/copy:v-{tag}": "app/web/copy:v-gone",
		"one/{name}:{tag}":          "one/web:gone",
	} {
		to := serve(t)
		name, tag, _ := strings.Cut(want, ":")
		images.push(t, to, name, images.image(images.layer("superfluous")), tag, "of-others")
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web:*"}, Rename: template, Prune: true})
		must(t, err)
		last := plan.Items[len(plan.Items)-1]
		if !slices.ContainsFunc(plan.Items, func(i sync.Item) bool { return i.Target == want && i.Change == sync.Removed }) {
			t.Errorf("%s: %s is not removed; the last is %+v", template, want, last)
		}
	}
	for selection, want := range map[string]error{"{name}:latest": berth.ErrTagInvalid, "{tag}:{tag}": berth.ErrTagInvalid, "{repository}:{tag}": sync.ErrTooMany} {
		to := serve(t)
		images.push(t, to, "app/web", images.image(images.layer("superfluous")), "gone")
		_, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web"}, Rename: selection, Prune: true, PruneMax: -1})
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", selection, err, want)
		}
	}
}

func TestSelectionsThatProtectOrSelectNothing(t *testing.T) {
	from, to := shelf(t), serve(t)
	for what, selection := range map[string]sync.Selection{
		"a repository that is none of them": {Patterns: []string{"app/web"}, Immutable: []string{"nix/web:v*"}},
		"a tag in place of a repository":    {Patterns: []string{"app/web"}, Immutable: []string{"v*"}},
		"all taken away":                    {Patterns: []string{"app/web", "!app/**"}},
	} {
		if _, err := sync.Make(t.Context(), from, at(to), selection); !errors.Is(err, sync.ErrNothing) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	selection := sync.Selection{Patterns: []string{"app/web"}, Immutable: []string{"app/**:release-*"}}
	if _, err := sync.Make(t.Context(), from, at(to), selection); err != nil {
		t.Errorf("a tag that does not exist yet: %v", err)
	}
}

func TestAnIndexThatCameWithoutSomeOfItsImagesGetsTheOthers(t *testing.T) {
	from, to, images := local(t), serveSparse(t), store{}
	root, _, _ := images.platforms()
	images.push(t, from, "app", root, "v1")
	places := remembered(t, to, filepath.Join(t.TempDir(), "journal"))
	some := sync.Selection{Patterns: []string{"app"}, Platforms: []v1.Platform{{OS: "linux", Architecture: "amd64"}}, Sparse: true}
	all := sync.Selection{Patterns: []string{"app"}}
	for step, c := range []struct {
		selection sync.Selection
		change    sync.Change
		children  int
	}{
		{some, sync.New, 1},
		{some, sync.Unchanged, 1},
		{all, sync.Incomplete, 2},
		{all, sync.Unchanged, 2},
		{some, sync.Unchanged, 2},
	} {
		report, err := sync.Run(t.Context(), from, places, c.selection, nil)
		if err != nil || report.Items[0].Change != c.change {
			t.Errorf("step %d: got %+v, %v, want %s", step, report, err, c.change)
		}
		if n := childrenThere(t, to.open(t, "app"), root.Digest); n != c.children {
			t.Errorf("step %d: %d images are there, want %d", step, n, c.children)
		}
	}
	to.sent()
	_, err := sync.Run(t.Context(), from, places, all, nil)
	must(t, err)
	to.mu.Lock()
	defer to.mu.Unlock()
	if len(to.requests) != 1 {
		t.Errorf("of what is there all was asked for: %q", to.requests)
	}
}

// denying lets nobody into one repository.
type denying string

func (d denying) Authorize(r *http.Request, _ server.Access) error {
	if strings.HasPrefix(r.URL.Path, "/v2/"+string(d)+"/") {
		return berth.ErrDenied
	}
	return nil
}

func (denying) Challenge(*http.Request, server.Access, error) string { return "" }

func TestWhatIsNotPermittedDoesNotHoldBackTheRest(t *testing.T) {
	from, to := shelf(t), serveWith(t, &server.Options{Authorizer: denying("app/web")})
	report, err := sync.Run(t.Context(), from, at(to), sync.Selection{Patterns: []string{"**"}}, nil)
	if !errors.Is(err, berth.ErrDenied) || len(report.Items) != 7 {
		t.Fatalf("got %+v, %v", report, err)
	}
	for _, r := range report.Items {
		if failed := strings.HasPrefix(r.Target, "app/web:"); failed != (r.Error != "") {
			t.Errorf("got %+v", r)
		}
	}
}
