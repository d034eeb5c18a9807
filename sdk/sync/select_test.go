package sync_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/sync"
)

// tagged is a layout with one repository that has some tags, all of one image.
func tagged(t *testing.T, tags ...string) (berth.Registry, v1.Descriptor) {
	t.Helper()
	registry, from := local(t), store{}
	image := from.image(from.layer("layer"))
	from.push(t, registry, "app/web", image, tags...)
	return registry, image
}

func TestTagsAreSelectedByVersionExpressionAndExclusion(t *testing.T) {
	from, _ := tagged(t, "1.1.9", "v1.2.0", "1.2.1", "1.3.0-rc.1", "1.3.0", "v2.0.0-rc.1", "2.0.0", "0.2.3", "0.2.9", "0.3.0", "dev-1", "latest", "nightly")
	to := serve(t)
	for patterns, want := range map[string]string{
		"app/web:>=1.2 <2":                 "1.2.1 1.3.0 v1.2.0",
		"app/web:>=1.2, <2":                "1.2.1 1.3.0 v1.2.0",
		"app/web:> 1.2.0 <= 2.0.0":         "1.2.1 1.3.0 2.0.0",
		"app/web:^1.2":                     "1.2.1 1.3.0 v1.2.0",
		"app/web:~1.2":                     "1.2.1 v1.2.0",
		"app/web:=1.2":                     "1.2.1 v1.2.0",
		"app/web:=1.3.0":                   "1.3.0",
		"app/web:^0.2.3":                   "0.2.3 0.2.9",
		"app/web:~0.2":                     "0.2.3 0.2.9",
		"app/web:>=1.3.0-0":                "1.3.0 1.3.0-rc.1 2.0.0 v2.0.0-rc.1",
		"app/web:<0.3 || >=2":              "0.2.3 0.2.9 2.0.0",
		`app/web:/^(latest|night.*)$/`:     "latest nightly",
		"app/web,!app/web:*.*,!**:dev-*":   "latest nightly",
		"app/web:d*,!app/web,app/web:dev*": "dev-1",
	} {
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: splitPatterns(patterns)})
		must(t, err)
		got := []string{}
		for _, source := range sources(plan) {
			got = append(got, strings.TrimPrefix(source, "app/web:"))
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %s, want %s", patterns, got, want)
		}
	}
	for _, pattern := range []string{"app/web:>=x", "app/web:^", "app/web:/(/", "app/web:>=1.2.3.4", "!app/web"} {
		if _, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{pattern}}); err == nil {
			t.Errorf("%s was taken", pattern)
		}
	}
}

// splitPatterns takes a comma before an exclusion or a repository for the end of a pattern.
func splitPatterns(text string) (patterns []string) {
	for part := range strings.SplitSeq(text, ",") {
		if strings.HasPrefix(part, " ") {
			patterns[len(patterns)-1] += "," + part
			continue
		}
		patterns = append(patterns, part)
	}
	return patterns
}

func TestTagsAreRenamed(t *testing.T) {
	from, to := shelf(t), serve(t)
	for template, want := range map[string]string{
		"":                            "app/web:v1",
		"{name}:{tag}":                "web:v1",
		"mirror/{repository}:x-{tag}": "mirror/app/web:x-v1",
		"all:{name}-{tag}":            "all:web-v1",
	} {
		plan, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web:v1"}, Rename: template})
		if err != nil || plan.Items[0].Target != want {
			t.Errorf("%s: got %+v, %v", template, plan, err)
		}
	}
	for template, want := range map[string]error{
		"{name}": berth.ErrNameInvalid, "x:y": berth.ErrNameInvalid, "{host}:{tag}": berth.ErrNameInvalid,
		"a:b:{tag}": berth.ErrNameInvalid, "{name}:": berth.ErrTagInvalid, "X/{name}:{tag}": berth.ErrNameInvalid,
	} {
		_, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web:v1"}, Rename: template})
		if err == nil || !strings.Contains(err.Error(), template) {
			t.Errorf("%s: got %v, want %v", template, err, want)
		}
	}
	_, err := sync.Make(t.Context(), from, at(to), sync.Selection{Patterns: []string{"app/web:v1", "app/web:v2"}, Rename: "{name}:latest"})
	if !errors.Is(err, berth.ErrTagInvalid) || !strings.Contains(err.Error(), "app/web:v1 and app/web:v2") {
		t.Errorf("two of one name: %v", err)
	}
}

func TestSomePlatforms(t *testing.T) {
	from, images := local(t), store{}
	root, amd64, _ := images.platforms()
	images.push(t, from, "app", root, "v1")
	images.push(t, from, "app", images.image(images.layer("plain")), "plain")
	linux, err := manifest.ParsePlatform("linux/amd64")
	must(t, err)
	for name, tt := range map[string]struct {
		selection sync.Selection
		root      string
		children  int // that came; -1: it is no index
	}{
		"all":             {sync.Selection{}, string(root.Digest), 2},
		"one":             {sync.Selection{Platforms: []v1.Platform{linux}}, string(amd64.Digest), -1},
		"one, and sparse": {sync.Selection{Platforms: []v1.Platform{linux}, Sparse: true}, string(root.Digest), 1},
	} {
		t.Run(name, func(t *testing.T) {
			to := serveSparse(t)
			tt.selection.Patterns = []string{"app"}
			plan, err := sync.Make(t.Context(), from, at(to), tt.selection)
			must(t, err)
			_, err = sync.Apply(t.Context(), from, at(to), plan, nil)
			must(t, err)
			repo := to.open(t, "app")
			got, err := repo.Resolve(t.Context(), "v1")
			if err != nil || string(got.Digest) != tt.root {
				t.Errorf("v1 is %s, %v, want %s", got.Digest, err, tt.root)
			}
			if tt.children < 0 {
				return
			}
			if n := childrenThere(t, repo, root.Digest); n != tt.children {
				t.Errorf("%d children came, want %d", n, tt.children)
			}
		})
	}
}
