package ocilayout

import (
	"strings"
	"testing"

	"github.com/distribution/reference"
	"pgregory.net/rapid"

	"github.com/berthoci/berth"
)

// wantImageName compares imageName with the package that Docker's tools use.
func wantImageName(t interface{ Errorf(string, ...any) }, repo string) {
	full, err := reference.ParseNormalizedNamed(repo)
	name, ok := imageName(repo)
	if ok != (err == nil) || ok && name != full.Name() {
		t.Errorf("imageName(%q) = %q, %v, want %v, %v", repo, name, ok, full, err)
	}
}

func TestImageName(t *testing.T) {
	for _, repo := range []string{
		"hello", "app/hello", "a/b/c", "default", "library/hello",
		"docker.io/hello", "docker.io/library/hello", "docker.io/a/b", "index.docker.io/hello", "index.docker.io/a/b", "docker.io",
		"localhost", "localhost/hello", "local/host", "quay.io/hello", "quay.io/a/b", "a.b.c/d", "127.0.0.1/hello",
		"a--b.c/d", "a_b.c/d", "a__b.c/d", "a.b_c/d/e", "a_b/c", "a.b/c_d", "a/b.c",
		strings.Repeat("a", 64), strings.Repeat("a", 63), strings.Repeat("g", 64), "x/" + strings.Repeat("a", 64), "docker.io/" + strings.Repeat("0", 64),
		strings.Repeat("a", 247), strings.Repeat("a", 248), strings.Repeat("b", 255), "b/" + strings.Repeat("b", 253), "docker.io/" + strings.Repeat("b", 245),
	} {
		if err := berth.ValidateRepository(repo); err != nil {
			t.Fatal(err)
		}
		wantImageName(t, repo)
	}
}

func TestImageNameOfAnyRepository(t *testing.T) {
	part := rapid.OneOf(rapid.StringMatching(`[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,3}`),
		rapid.SampledFrom([]string{"localhost", "docker.io", "index.docker.io", "library", strings.Repeat("f", 64)}),
		rapid.StringMatching(`[a-f0-9]{60,66}`), rapid.StringMatching(`[a-z]{100,200}`))
	rapid.Check(t, func(t *rapid.T) {
		repo := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
		if berth.ValidateRepository(repo) != nil {
			t.Skip("no repository")
		}
		wantImageName(t, repo)
	})
}
