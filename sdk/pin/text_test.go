package pin

import (
	"strings"
	"testing"
)

func mustText(t *testing.T, data string) *text {
	t.Helper()
	x, err := newText("berth.lock", []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestLines(t *testing.T) {
	tests := []struct {
		data string
		want []string
		eol  string
	}{
		{"", []string{""}, "\n"},
		{"a", []string{"a"}, "\n"},
		{"a\n", []string{"a", ""}, "\n"},
		{"a\r\n", []string{"a", ""}, "\r\n"},
		{"\r\n\r\nb", []string{"", "", "b"}, "\r\n"},
		{"a\nb\r\n\nc", []string{"a", "b", "", "c"}, "\n"},
	}
	for _, tt := range tests {
		x := mustText(t, tt.data)
		var got []string
		for line := range x.lines {
			got = append(got, string(x.content(line)))
		}
		if strings.Join(got, "|") != strings.Join(tt.want, "|") || x.eol() != tt.eol {
			t.Errorf("%q has the lines %q and the ending %q, want %q and %q", tt.data, got, x.eol(), tt.want, tt.eol)
		}
	}
}

func TestWhereNewLinesGo(t *testing.T) {
	x := mustText(t, strings.Join([]string{
		"0:",
		"  # 1, leads to nothing",
		"",
		"  # 3, leads to 5",
		"# 4",
		"  5: x",
		"    # 6, belongs to 5",
		"",
		"      # 8, too",
		"  # 9, does not",
		"    # 10, nor does this",
		"  11: x",
	}, "\n"))
	if got := x.above(5); got != 2 {
		t.Errorf("before 5 is behind %d, want 2", got)
	}
	if got := x.above(1); got != 0 {
		t.Errorf("before 1 is behind %d, want 0", got)
	}
	if got := x.through(5, 2); got != 8 {
		t.Errorf("after 5 is behind %d, want 8", got)
	}
	if got := x.through(11, 2); got != 11 {
		t.Errorf("after the last is behind %d, want 11", got)
	}
}

func TestApply(t *testing.T) {
	const data = "a\n  b: 1 # x\n  # y\n  c: 2\nd"
	x := mustText(t, data)
	tests := []struct {
		name  string
		edits []edit
		want  string
	}{
		{"none", nil, data},
		{"insert", []edit{x.insert(0, "new")}, "a\nnew\n  b: 1 # x\n  # y\n  c: 2\nd"},
		{"insert at the end", []edit{x.insert(4, "e", "", "f")}, data + "\ne\n\nf"},
		{"insert twice at one place", []edit{x.insert(0, "1"), x.insert(0, "2")}, "a\n1\n2\n  b: 1 # x\n  # y\n  c: 2\nd"},
		{"remove", []edit{x.remove(3, 3)}, "a\n  b: 1 # x\n  # y\nd"},
		{"remove, with comments", []edit{x.remove(1, 3)}, "a\n  # x\n  # y\nd"},
		{"remove neighbours", []edit{x.remove(3, 3), x.remove(4, 4)}, "a\n  b: 1 # x\n  # y"},
		{"insert behind what is removed", []edit{x.insert(3, "new"), x.remove(3, 3)}, "a\n  b: 1 # x\n  # y\nnew\nd"},
		{"insert before what is removed", []edit{x.remove(3, 3), x.insert(2, "new")}, "a\n  b: 1 # x\n  # y\nnew\nd"},
		{"replace, out of order", []edit{{start: 26, end: 27, text: "D"}, {start: 0, end: 1, text: "A"}}, "A" + data[1:26] + "D"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(x.apply(tt.edits)); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestBecomes shows that an edit which went wrong would be noticed.
func TestBecomes(t *testing.T) {
	before := mustParse(t, expand(head+"  a:v1:\n"+fields+"  b:v1:\n"+fields))
	b := index("b:v1", "b")
	b.Comment = "new"
	after := mustParse(t, string(before.Bytes()))
	if err := after.set([]Pin{b, image("c:v1", "c")}); err != nil {
		t.Fatal(err)
	}
	wanted := func(pins ...Pin) map[string]Pin {
		m := make(map[string]Pin)
		for _, p := range pins {
			m[p.Reference] = p
		}
		return m
	}
	tests := []struct {
		name   string
		wanted map[string]Pin
		want   bool
	}{
		{"as wanted", wanted(b, image("c:v1", "c")), true},
		{"b changed, nobody wanted that", wanted(image("c:v1", "c")), false},
		{"c is new, nobody wanted that", wanted(b), false},
		{"c is another", wanted(b, image("c:v1", "d")), false},
		{"d is missing", wanted(b, image("c:v1", "c"), image("d:v1", "d")), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := before.doc.becomes(after.doc, tt.wanted); got != tt.want {
				t.Errorf("got %v", got)
			}
		})
	}
}
