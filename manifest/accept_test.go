package manifest

import (
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// all are the media types of manifests, each as a letter: I and M are OCI's index and image, L and D
// Docker's list and image, S and s schema 1, signed and not.
var all = []struct{ letter, mediaType string }{
	{"I", v1.MediaTypeImageIndex}, {"M", v1.MediaTypeImageManifest},
	{"L", MediaTypeDockerManifestList}, {"D", MediaTypeDockerManifest},
	{"S", MediaTypeSchema1Signed}, {"s", MediaTypeSchema1},
}

// takes writes the letters of what is taken.
func takes(a Accept) string {
	var letters strings.Builder
	for _, t := range all {
		if a.Takes(t.mediaType) {
			letters.WriteString(t.letter)
		}
	}
	return letters.String()
}

// No Accept at all takes everything. Accept: several headers, comma lists, parameters ignored.
func TestAcceptSeveralHeadersListsAndParameters(t *testing.T) {
	const (
		oci    = v1.MediaTypeImageManifest
		docker = MediaTypeDockerManifest
		list   = MediaTypeDockerManifestList
	)
	tests := []struct {
		name   string
		values []string
		want   string
	}{
		{"no field", nil, "IMLDSs"},
		{"an empty field", []string{""}, "IMLDSs"},
		{"commas alone", []string{" ,, ,\t"}, "IMLDSs"},
		{"garbage alone", []string{"\x00, é, /, a/, /b, a/b/c, */x, application", "/;q="}, "IMLDSs"},
		{"a type that nobody has", []string{"%%/%%;q="}, ""},
		{"letters that fold to ASCII", []string{"application/vnd.doc\u212Aer.distribution.manifest.v2+json"}, "IMLDSs"},
		{"one", []string{oci}, "M"},
		{"a list", []string{oci + "," + docker}, "MD"},
		{"a list with spaces", []string{"\t" + oci + " ,\t " + docker + " "}, "MD"},
		{"several fields", []string{oci, docker + "," + list}, "MLD"},
		{"upper case", []string{strings.ToUpper(oci)}, "M"},
		{"parameters", []string{oci + "; charset=utf-8;version=\"1\""}, "M"},
		{"garbage beside", []string{"\x00," + oci + ",,;q=1,a b/c," + docker}, "MD"},
		{"everything", []string{"*/*"}, "IMLDSs"},
		{"everything, weakly", []string{"text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"}, "IMLDSs"},
		{"a star alone", []string{"*"}, "IMLDSs"},
		{"one kind", []string{"application/*"}, "IMLDSs"},
		{"another kind", []string{"text/*, image/png"}, ""},
		{"weights", []string{oci + ";q=0.1, " + docker + "; Q = 0.001"}, "MD"},
		{"a weight of zero", []string{oci + ";q=0, " + docker}, "D"},
		{"weights of zero", []string{oci + ";q=0.000, " + docker + ";a=b;q=0., " + list + ";q=1.0"}, "L"},
		{"what is no weight", []string{oci + ";q=, " + docker + ";q=-0," + list + ";q=00;q"}, "MLD"},
		{"the first weight counts", []string{oci + ";q=1;q=0"}, "M"},
		{"all but one", []string{"*/*, " + oci + ";q=0"}, "ILDSs"},
		{"one kind but all", []string{"*/*;q=0, application/*"}, "IMLDSs"},
		{"all but one kind", []string{"*/*, application/*;q=0"}, ""},
		{"refused and taken", []string{oci + ";version=1;q=0," + oci}, "M"},
		{"nothing", []string{"*/*;q=0"}, ""},
		{"a comma in quotes", []string{`a/b;c="` + docker + `,` + list + `,\"",` + oci}, "M"},
		{"a weight in quotes", []string{oci + `;a=";q=0"`}, "M"},
		{"a quote without end", []string{`a/b;c=",` + oci + "," + docker}, "MD"},
		{"JSON", []string{"application/json"}, "IMLDSs"},
		{"JSON, and anything", []string{"application/json, text/plain, */*"}, "IMLDSs"},
		{"JSON, and web pages", []string{"application/json, text/html"}, "IMLDSs"},
		{"JSON beside manifests", []string{docker + ", application/json"}, "DSs"},
		{"JSON beside schema 1", []string{MediaTypeSchema1 + ", application/json"}, "Ss"},
		{"JSON, and one refused", []string{"application/json, " + oci + ";q=0"}, "Ss"},
		{"no JSON", []string{"application/json;q=0"}, ""},
		{"JSON-like", []string{"application/*+json"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := ParseAccept(tt.values)
			if got := takes(a); got != tt.want {
				t.Errorf("takes %q, want %q: %v", got, tt.want, a)
			}
		})
	}
	if !(Accept{}).Takes("anything/else") || ParseAccept([]string{"a/b"}).Takes("") {
		t.Error("types that are no manifest's")
	}
	if !ParseAccept([]string{docker}).Takes(strings.ToUpper(docker) + " ; charset=utf-8") {
		t.Error("the type that is asked about has parameters")
	}
}

func TestAcceptIsBounded(t *testing.T) {
	filler := strings.Repeat("a/b,", maxAccept/4)
	tests := []struct {
		name   string
		values []string
		want   string
	}{
		{"within", []string{filler[:maxAccept/2], MediaTypeDockerManifest}, "D"},
		{"the first field counts", []string{MediaTypeDockerManifest + "," + filler, v1.MediaTypeImageManifest}, "D"},
		{"one that is cut does not", []string{filler[:maxAccept-16] + v1.MediaTypeImageManifest + "x," + MediaTypeDockerManifest}, ""},
		{"a single long element", []string{strings.Repeat("a", 2*maxAccept)}, "IMLDSs"},
		{"a long name", []string{"a/" + strings.Repeat("b", maxTypeLength)}, "IMLDSs"},
	}
	for _, tt := range tests {
		a := ParseAccept(tt.values)
		if got := takes(a); got != tt.want {
			t.Errorf("%s: takes %q, want %q", tt.name, got, tt.want)
		}
		if s := a.String(); len(s) > maxReason+maxTypeLength+20 {
			t.Errorf("%s: it is described in %d bytes", tt.name, len(s))
		}
	}
}

func TestAcceptDescribesItself(t *testing.T) {
	for want, a := range map[string]Accept{
		"everything":                ParseAccept(nil),
		"a/b, */*;q=0, text/*":      ParseAccept([]string{"A/B;x=y, *;q=0", "garbage, text/*;q=0.5"}),
		MediaTypeDockerManifestList: ParseAccept([]string{MediaTypeDockerManifestList}),
	} {
		if got := a.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func FuzzAccept(f *testing.F) {
	f.Add("", "")
	f.Add("application/vnd.oci.image.manifest.v1+json;q=0, */*", "application/json")
	f.Add(`a/b;c="d,e\"",*`, "text/*;q=0.000")
	f.Add("application/vnd.docker.distribution.manifest.v2+json;charset=utf-8,,\x00", MediaTypeSchema1)
	f.Fuzz(func(t *testing.T, first, second string) {
		a := ParseAccept([]string{first, second})
		for _, r := range a.ranges {
			if !isRange(r.name) || r.name != strings.ToLower(r.name) {
				t.Errorf("%q is no range", r.name)
			}
		}
		s := a.String()
		if len(s) > maxReason+maxTypeLength+20 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '"' }) {
			t.Errorf("it describes itself as %q", s)
		}
		if len(a.ranges) > 0 && !strings.HasSuffix(s, "…") && takes(ParseAccept([]string{s})) != takes(a) {
			t.Errorf("%q takes %q, read again %q", s, takes(a), takes(ParseAccept([]string{s})))
		}
		for _, stored := range all {
			for _, byTag := range []bool{true, false} {
				checkNegotiated(t, a, v1.Descriptor{MediaType: stored.mediaType}, byTag)
			}
		}
	})
}
