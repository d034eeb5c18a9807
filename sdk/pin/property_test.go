package pin

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"
)

var platforms = []string{"linux/amd64", "linux/arm64/v8", "windows/amd64", "windows(10.0.1)/amd64", "darwin(macOS 14)/arm64"}

func drawDigest(t *rapid.T) digest.Digest {
	return hexOf(rapid.SampledFrom(strings.Split("0123456789abcdef", "")).Draw(t, "digest"))
}

// anyText may hold a comment that looks like one of the notes; those are numbered with a dot behind.
func anyText() *rapid.Generator[string] {
	return rapid.String().Filter(func(s string) bool { return !strings.Contains(s, "# note") })
}

func drawPin(t *rapid.T) Pin {
	p := Pin{
		Reference: rapid.SampledFrom([]string{"team/web:v1", "team/api:v1", "a:v1", "z:v1", "m:1", "12:30", "team/w:v1", "x.io/y:latest", "[::1]:5000/x:v1"}).Draw(t, "reference"),
		Digest:    drawDigest(t),
		MediaType: v1.MediaTypeImageManifest,
		Size:      rapid.Int64Range(1, 4<<20).Draw(t, "size"),
		Comment:   rapid.OneOf(rapid.Just(""), rapid.SampledFrom([]string{"null", "yes", "~", "#", " x", "a: b", "a #b", "1", "- a", "'", `"`, "a\nb", "é", "\u2028", "\r"}), anyText()).Draw(t, "comment"),
	}
	for _, platform := range rapid.SliceOfDistinct(rapid.SampledFrom(platforms), rapid.ID).Draw(t, "platforms") {
		p.MediaType = v1.MediaTypeImageIndex
		p.addPlatform(platform, drawDigest(t))
	}
	return p
}

// handwriting writes a file as people do; the comments are numbered, so that none is like another.
type handwriting struct {
	*rapid.T
	strings.Builder
	notes int
}

// note writes a blank line, a comment, or nothing.
func (h *handwriting) note(indent int) {
	switch rapid.IntRange(0, 4).Draw(h.T, "note") {
	case 0:
		h.WriteString("\n")
	case 1, 2:
		h.notes++
		fmt.Fprintf(h, "%s# note %d.\n", strings.Repeat(" ", indent), h.notes)
	}
}

func (h *handwriting) line(s string) {
	h.note(rapid.IntRange(0, 10).Draw(h.T, "indent"))
	h.WriteString(s)
	if rapid.Bool().Draw(h.T, "noted") {
		h.notes++
		fmt.Fprintf(h, "  # note %d.", h.notes)
	}
	h.WriteString("\n")
}

func (h *handwriting) pin(p Pin) {
	step := rapid.IntRange(1, 4).Draw(h.T, "step")
	prose := p.Comment
	p.Comment = ""
	lines := p.lines(2, step)
	h.line(lines[0])
	// The fields in any order; what belongs to platforms is one group.
	groups := [][]string{lines[1:2], lines[2:3], lines[3:4], lines[4:], {prose}}
	for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4}).Draw(h.T, "order") {
		if i == 4 {
			h.comment(2+step, prose)
			continue
		}
		for _, l := range groups[i] {
			h.line(l)
		}
	}
}

func (h *handwriting) comment(col int, prose string) {
	inner := strings.Repeat(" ", col)
	switch {
	case prose == "":
	case rapid.Bool().Draw(h.T, "block"):
		h.line(inner + rapid.SampledFrom([]string{"comment: |", "comment: >-"}).Draw(h.T, "header"))
		fmt.Fprintf(h, "%s  One.\n\n%s    # Two.\n%s  Three.\n", inner, inner, inner)
		// What is indented as deep as the block would be part of it.
		h.notes++
		fmt.Fprintf(h, "# note %d.\n", h.notes)
	default:
		h.line(inner + "comment: " + encode(prose))
	}
}

func drawFile(t *rapid.T) (string, int) {
	h := &handwriting{T: t}
	h.line("version: 1")
	h.line("pins:")
	seen := make(map[string]bool)
	for range rapid.IntRange(0, 4).Draw(t, "pins") {
		if p := drawPin(t); !seen[p.Reference] {
			seen[p.Reference] = true
			h.pin(p)
		}
	}
	h.note(rapid.IntRange(0, 10).Draw(t, "indent"))
	data := h.String()
	if rapid.Bool().Draw(t, "no last newline") {
		data = strings.TrimSuffix(data, "\n")
	}
	if rapid.Bool().Draw(t, "CRLF") {
		data = strings.ReplaceAll(data, "\n", "\r\n")
	}
	return data, h.notes
}

func TestSetLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, notes := drawFile(t)
		f, err := Parse("berth.lock", []byte(data))
		if err != nil {
			t.Fatalf("%v in\n%s", err, data)
		}
		model := make(map[string]Pin)
		for _, p := range f.Pins() {
			model[p.Reference] = p
		}
		for range rapid.IntRange(1, 8).Draw(t, "steps") {
			p := drawPin(t)
			before := *f
			if err := f.Set(p); err != nil {
				t.Fatalf("Set(%+v): %v in\n%s", p, err, f.Bytes())
			}
			if p.Comment == "" {
				p.Comment = model[p.Reference].Comment
			}
			model[p.Reference] = p
			checkModel(t, f, model)
			checkOthers(t, before.doc, f.doc, p.Reference)
			checkNotes(t, f, notes)
			checkYAML(t, f)
		}
	})
}

// checkModel compares both the File and what its bytes say.
func checkModel(t *rapid.T, f *File, model map[string]Pin) {
	again, err := Parse("berth.lock", f.Bytes())
	if err != nil {
		t.Fatalf("%v in\n%s", err, f.Bytes())
	}
	for _, file := range []*File{f, again} {
		got := make(map[string]Pin)
		for _, p := range file.Pins() {
			got[p.Reference] = p
		}
		if !maps.EqualFunc(got, model, Pin.equal) {
			t.Fatalf("got  %+v\nwant %+v\nin\n%s", got, model, f.Bytes())
		}
	}
}

// checkOthers wants all entries but one in their old order, and their bytes as they were.
func checkOthers(t *rapid.T, before, after *document, set string) {
	chunks := func(d *document) (chunks []string) {
		for _, r := range d.records {
			if r.Reference != set {
				chunks = append(chunks, string(d.data[d.lines[r.line]:d.end(r.last)]))
			}
		}
		return chunks
	}
	if was, is := chunks(before), chunks(after); !slices.Equal(was, is) {
		t.Fatalf("other entries were\n%q\nand are\n%q", was, is)
	}
	keys := func(d *document) (keys []string) {
		for _, r := range d.records {
			keys = append(keys, r.Reference)
		}
		return keys
	}
	if slices.IsSorted(keys(before)) && !slices.IsSorted(keys(after)) {
		t.Fatalf("the order was %v and is %v", keys(before), keys(after))
	}
}

// checkNotes wants every comment once, and line endings of one kind.
func checkNotes(t *rapid.T, f *File, notes int) {
	got := string(f.Bytes())
	for i := range notes {
		if note := fmt.Sprintf("# note %d.", i+1); strings.Count(got, note) != 1 {
			t.Fatalf("%q is there %d times in\n%s", note, strings.Count(got, note), got)
		}
	}
	if n := strings.Count(got, "\r\n"); n != 0 && n != strings.Count(got, "\n") {
		t.Fatalf("line endings are mixed: %q", got)
	}
}

// checkYAML wants other readers of YAML to see what this package sees.
func checkYAML(t *rapid.T, f *File) {
	var file struct {
		Version int
		Pins    map[string]struct {
			Digest    digest.Digest
			MediaType string `yaml:"mediaType"`
			Size      int64
			Platforms map[string]digest.Digest
			Comment   string
		}
	}
	if err := yaml.Unmarshal(f.Bytes(), &file); err != nil {
		t.Fatalf("%v in\n%s", err, f.Bytes())
	}
	if file.Version != 1 || len(file.Pins) != len(f.Pins()) {
		t.Fatalf("version %d, %d pins in\n%s", file.Version, len(file.Pins), f.Bytes())
	}
	for _, want := range f.Pins() {
		e := file.Pins[want.Reference]
		got := Pin{want.Reference, e.Digest, e.MediaType, e.Size, e.Platforms, e.Comment}
		if !got.equal(want) {
			t.Fatalf("YAML has %+v, want %+v in\n%s", got, want, f.Bytes())
		}
	}
}
