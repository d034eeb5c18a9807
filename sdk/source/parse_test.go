package source_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth/sdk/source"
)

func TestParseTakesFormPathAndName(t *testing.T) {
	for _, c := range []struct{ text, form, path, name string }{
		{"oci:dir", "oci", "dir", ""},
		{"oci:dir:v1", "oci", "dir", "v1"},
		{"oci:out/image:app/hello:v1", "oci", "out/image", "app/hello:v1"},
		{"oci:/abs/dir:v1", "oci", "/abs/dir", "v1"},
		{"oci:dir:", "oci", "dir", ""},
		{"oci:.", "oci", ".", ""},
		{"oci-archive:a.tar", "oci-archive", "a.tar", ""},
		{"oci-archive:a.tar:v1", "oci-archive", "a.tar", "v1"},
		{"oci:a b:c d", "oci", "a b", "c d"},
	} {
		form, path, name, err := source.Split(c.text)
		if got := [3]string{form, path, name}; err != nil || got != [3]string{c.form, c.path, c.name} {
			t.Errorf("%s: got %q, %v", c.text, got, err)
		}
		src, err := source.Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if said := fmt.Sprint(src); said != strings.TrimSuffix(c.text, ":") {
			t.Errorf("%s says that it is %s", c.text, said)
		}
	}
}

func TestParseRefusesOtherForms(t *testing.T) {
	for _, text := range []string{"", "oci", "oci:", "oci::v1", "oci-archive:", "oci-archive::v1", "dir", "/abs/dir", "docker://app",
		"docker-archive:", "docker-archive::v1", "OCI:dir", " oci:dir", ":dir"} {
		if _, err := source.Parse(text); !errors.Is(err, source.ErrForm) {
			t.Errorf("Parse(%q): got %v, want ErrForm", text, err)
		}
		if _, err := source.ParseDestination(text); !errors.Is(err, source.ErrForm) {
			t.Errorf("ParseDestination(%q): got %v, want ErrForm", text, err)
		}
	}
}

func TestParseTellsWhoKnowsRegistries(t *testing.T) {
	_, err := source.Parse("docker://registry.example.com/app")
	if !errors.Is(err, source.ErrForm) || !strings.Contains(err.Error(), "use ParseSource or ParseDestination of sdk.Images") {
		t.Errorf("got %v", err)
	}
}

func TestParseErrorNamesTheTextButNotAllOfIt(t *testing.T) {
	_, err := source.Parse("tarball:image.tar")
	if err == nil || !strings.Contains(err.Error(), `"tarball:image.tar"`) {
		t.Errorf("got %v", err)
	}
	_, err = source.Parse(strings.Repeat("x", 5000))
	if err == nil || len(err.Error()) > 400 {
		t.Errorf("the error has %d bytes", len(err.Error()))
	}
}

// The colon of a drive belongs to the path where there are drives, and divides elsewhere.
func TestParseOfADriveLetter(t *testing.T) {
	path, name := `C`, `\image:v1`
	if filepath.VolumeName(`C:\image`) != "" {
		path, name = `C:\image`, `v1`
	}
	form, gotPath, gotName, err := source.Split(`oci:C:\image:v1`)
	if err != nil || form != source.FormLayout || gotPath != path || gotName != name {
		t.Errorf("got %s, %s, %s, %v", form, gotPath, gotName, err)
	}
}

func TestParseDoesNoIO(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"oci:" + dir + "/absent", "oci-archive:" + dir + "/absent.tar"} {
		src, err := source.Parse(text)
		must(t, err)
		must(t, src.Close())
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
}

func TestParseDestinationMakesEitherForm(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"oci:" + dir + "/layout:v1", "oci-archive:" + dir + "/image.tar:v1"} {
		to, err := source.ParseDestination(text)
		must(t, err)
		stored := store(t, to, "some image")
		must(t, to.Commit(t.Context(), stored))
		must(t, to.Close())
		src, err := source.Parse(text)
		must(t, err)
		if root, err := src.Root(t.Context()); err != nil || root.Digest != stored.Digest {
			t.Errorf("%s: got %v, %v", text, root, err)
		}
		must(t, src.Close())
	}
}
