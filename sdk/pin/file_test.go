package pin

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestLoadAndSave(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.lock")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Pins()) != 0 {
		t.Errorf("a missing file has pins: %v", f.Pins())
	}
	if err := f.Set(index("a:v1", "a", "linux/386=1")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("Set wrote the file")
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	again, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	wantPins(t, again.Pins(), f.Pins())
	wantBytes(t, again, string(f.Bytes()))
}

func TestSaveCreatesAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.lock")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != empty {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestSaveWritesOnlyWhatChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.lock")
	if err := os.WriteFile(path, []byte(expand(hand)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	save := func() os.FileInfo {
		t.Helper()
		if err := f.Save(); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	before, _ := os.Stat(path)
	api, _ := f.Pin("team/api:v1")
	api.Comment = ""
	if err := f.Set(api); err != nil {
		t.Fatal(err)
	}
	if after := save(); !os.SameFile(before, after) {
		t.Error("an unchanged file was written")
	}
	api.Size++
	if err := f.Set(api); err != nil {
		t.Fatal(err)
	}
	changed := save()
	if os.SameFile(before, changed) {
		t.Error("a changed file was not written, or was written in place")
	}
	if runtime.GOOS != "windows" && changed.Mode().Perm() != 0o600 {
		t.Errorf("the mode became %v", changed.Mode())
	}
	if after := save(); !os.SameFile(changed, after) {
		t.Error("a saved file was written again")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("other files were left: %v", entries)
	}
}

func TestSaveTellsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "missing", "berth.lock")
	f, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err == nil || !strings.Contains(err.Error(), filepath.Dir(path)) {
		t.Errorf("got %v", err)
	}
}

func TestSaveCanBeTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	f, err := Load(filepath.Join(dir, "berth.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err == nil {
		t.Fatal("Save wrote into a directory that is not there")
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "berth.lock")); err != nil {
		t.Error(err)
	}
}

func TestSaveFollowsALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real.lock"), filepath.Join(dir, "berth.lock")
	if err := os.WriteFile(real, []byte(empty), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real.lock", link); err != nil {
		t.Skip(err)
	}
	f, err := Load(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Set(image("a:v1", "a")); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if data, err := os.ReadFile(real); err != nil || string(data) != string(f.Bytes()) {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestParsedFileIsSavedUnderItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.lock")
	f, err := Parse(path, []byte(empty))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("what Parse was given was written although nothing changed")
	}
	if err := f.Set(image("a:v1", "a")); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != string(f.Bytes()) {
		t.Errorf("got %q, %v", data, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory: got %v", err)
	}
	path := filepath.Join(dir, "berth.lock")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Load(path)
	wantInvalid(t, err, path+":1: there is nothing in it")
	if err := os.Truncate(path, MaxSize+1); err != nil {
		t.Fatal(err)
	}
	_, err = Load(path)
	wantInvalid(t, err, path+":1: the file has more than 16777216 bytes")
}

func TestPin(t *testing.T) {
	f := mustParse(t, expand(hand))
	for _, reference := range []string{"team/api:v1", "team/api:v1@" + string(hexOf("0"))} {
		p, ok := f.Pin(reference)
		if !ok || p.Reference != "team/api:v1" || p.Digest != hexOf("b") {
			t.Errorf("Pin(%q) = %+v, %v", reference, p, ok)
		}
	}
	for _, reference := range []string{"team/api", "docker.io/team/api:v1", "", "NO", "team/api@" + string(hexOf("b"))} {
		if p, ok := f.Pin(reference); ok {
			t.Errorf("Pin(%q) = %+v", reference, p)
		}
	}
}

func TestJSON(t *testing.T) {
	p := index("a:v1", "a", "linux/386=1")
	p.Comment = "why"
	tests := []struct {
		value any
		want  string
	}{
		{p, `{"reference":"a:v1","digest":"<a>","mediaType":"INDEX","size":9,"platforms":{"linux/386":"<1>"},"comment":"why"}`},
		{image("a:v1", "a"), `{"reference":"a:v1","digest":"<a>","mediaType":"IMAGE","size":7}`},
		{Change{Reference: "a:v1", New: hexOf("a")}, `{"reference":"a:v1","new":"<a>"}`},
		{Change{Reference: "a:v1", Old: hexOf("b"), New: hexOf("a")}, `{"reference":"a:v1","old":"<b>","new":"<a>"}`},
		{Drift{Reference: "a:v1", Pinned: hexOf("a"), Reason: "gone"}, `{"reference":"a:v1","pinned":"<a>","reason":"gone"}`},
		{Drift{Reference: "a:v1", Pinned: hexOf("a"), Found: hexOf("b"), Reason: "x"}, `{"reference":"a:v1","pinned":"<a>","found":"<b>","reason":"x"}`},
	}
	for _, tt := range tests {
		if got, err := json.Marshal(tt.value); err != nil || string(got) != expand(tt.want) {
			t.Errorf("got  %s, %v\nwant %s", got, err, expand(tt.want))
		}
	}
}
