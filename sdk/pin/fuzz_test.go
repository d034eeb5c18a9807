package pin

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// FuzzParse feeds any bytes: what is refused is refused in one line, and what is read can be edited
// without a change to anything else.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", empty, hand, head + "  a:v1:\n" + fields, "version: 1\npins: {}\n",
		head + "  a:v1:\n" + fields + "    comment: |\n      x\n\n    platforms:\n      linux/386: <1>\n",
		head + "  \"a\\x3av1\":\n    'digest': \"<a>\"\n    mediaType: INDEX\n    size: 9\n    comment: >-\n     a\n\n  b:v1:\n" + fields + "...\n",
		"? version\n: 1\n", "&a pins: *a\n", "version: 1\npins: !!map\n", "<<<<<<< x\n",
	} {
		f.Add([]byte(expand(seed)))
		f.Add([]byte(strings.ReplaceAll(expand(seed), "\n", "\r\n")))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("berth.lock", data)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "berth.lock:") {
				t.Fatalf("error of another form: %q", err)
			}
			return
		}
		again, err := Parse("berth.lock", file.Bytes())
		if err != nil || string(again.Bytes()) != string(data) || !slices.EqualFunc(again.Pins(), file.Pins(), Pin.equal) {
			t.Fatalf("%v: got %+v, want %+v", err, again.Pins(), file.Pins())
		}
		editAll(t, file)
	})
}

// editAll sets every pin to something else, and a new one.
func editAll(t *testing.T, file *File) {
	edited := []Pin{index("fuzz/new:v1", "f", "linux/386=1")}
	for i, p := range file.Pins() {
		other := image(p.Reference, "e")
		if i%2 == 0 {
			other = index(p.Reference, "e", "linux/amd64=2", "windows/arm64=3")
		}
		other.Comment = "fuzzed"
		edited = append(edited, other)
	}
	for _, p := range edited {
		if err := file.Set(p); err != nil {
			t.Fatalf("%v in\n%s", err, file.Bytes())
		}
		if got, _ := file.Pin(p.Reference); !got.equal(p) {
			t.Fatalf("got %+v, want %+v", got, p)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, seed := range []string{"", "alpine", "docker.io/alpine", "localhost:5000/x:v1", "a:b@" + string(hexOf("a")), "[::1]/x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		key, err := Normalize(reference)
		if err != nil {
			return
		}
		if again, err := Normalize(key); err != nil || again != key {
			t.Fatalf("Normalize(%q) = %q, whose full form is %q, %v", reference, key, again, err)
		}
		file := mustParse(t, empty)
		if err := file.Set(image(reference, "a")); err != nil {
			t.Fatal(err)
		}
		if got := file.Pins()[0].Reference; got != key {
			t.Fatalf("got %q, want %q", got, key)
		}
	})
}
