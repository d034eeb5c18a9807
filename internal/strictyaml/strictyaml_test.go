package strictyaml_test

import (
	"strings"
	"testing"

	"github.com/berthoci/berth/internal/strictyaml"
)

type file struct {
	Name  string
	Count int
	On    bool
	Rate  float64
	Tags  []string
	Parts []part
}

type part struct{ Name string }

func TestDecodeReadsOneDocument(t *testing.T) {
	got := file{Name: "as it was"}
	if err := strictyaml.Decode([]byte("# nothing\n"), &got, ""); err != nil || got.Name != "as it was" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := strictyaml.Decode([]byte("---\ncount: 3\ntags: [a, b]\nparts:\n- name: x\n"), &got, ""); err != nil || got.Count != 3 || len(got.Tags) != 2 || got.Parts[0].Name != "x" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDecodeTellsInOneLineWhatIsWrong(t *testing.T) {
	for text, says := range map[string]string{
		"nmae: x":                   `line 1: there is no field "nmae"; it has a name`,
		"parts:\n- {nmae: x}":       `line 2: there is no field "nmae"; it has a name`,
		"name: x\n---\nname: y":     "more than one YAML document",
		"count: many":               "line 1: `many` is not a number",
		"rate: fast":                "line 1: `fast` is not a number",
		"on: perhaps":               "line 1: `perhaps` is not true or false",
		"name: [x]":                 "line 1: is not a text",
		"tags: x":                   "line 1: `x` is not a list, like [pull, push]",
		"parts: 5":                  "line 1: `5` is not a list",
		"5":                         "line 1: `5` is not what there should be",
		"[":                         "line 1",
		"name: \x00":                "control characters",
		"a: 1\nb: 2\nb: 3":          "line",
		strings.Repeat("x: {", 5e4): "",
	} {
		err := strictyaml.Decode([]byte(text), &file{}, "it has a name")
		switch {
		case err == nil || !strings.Contains(err.Error(), says):
			t.Errorf("%.60q: got %v, want it to say %q", text, err, says)
		case strings.Contains(err.Error(), "\n") || len(err.Error()) > 250 || strings.Contains(err.Error(), "strictyaml"):
			t.Errorf("%.60q: %q is not for people", text, err)
		}
	}
}
