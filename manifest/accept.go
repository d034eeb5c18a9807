package manifest

import "strings"

const (
	// maxAccept is how many bytes of a request's Accept fields are read. Clients send about 500.
	maxAccept = 16 << 10
	// maxReason is how much of them an error repeats.
	maxReason = 300
)

// Accept is which media types a client reads, as its request says. The zero value is every type.
type Accept struct {
	ranges []mediaRange
}

// mediaRange is one element: a type, in lower case, or all types below a type, or all.
type mediaRange struct {
	name string
	// refused is set if the weight is zero.
	refused bool
}

// ParseAccept reads the values of all Accept fields of a request (RFC 9110, 12.5.1). It does not
// fail: what it cannot read is left out, and if nothing is left, the client is taken to read
// everything, as if it had sent no field. So is one that sends an empty field.
//
//   - Lists are split at commas that are not in quotes; empty elements are nothing.
//   - Types do not depend on case. Parameters are ignored: no manifest has any.
//   - A weight of zero refuses. Other weights are all the same, for there is one manifest to serve.
//   - "*" alone is "*/*", which Java sent.
//   - Of the first 16 KiB, elements that are whole count. Clients name what they want most first.
func ParseAccept(values []string) Accept {
	var a Accept
	left := maxAccept
	for _, value := range values {
		if len(value) > left {
			value = value[:strings.LastIndexByte(value[:left], ',')+1]
			left = len(value)
		}
		left -= len(value)
		for _, element := range splitUnquoted(value, ',') {
			if r, ok := parseRange(element); ok {
				a.ranges = append(a.ranges, r)
			}
		}
	}
	return a
}

// splitUnquoted splits at a separator that is not in a quoted string. Where quotes do not come in
// pairs they mean nothing.
func splitUnquoted(s string, separator byte) []string {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == separator && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	if quoted {
		return strings.Split(s, string(separator))
	}
	return append(parts, s[start:])
}

func parseRange(element string) (mediaRange, bool) {
	parts := splitUnquoted(element, ';')
	name := trimSpace(parts[0])
	if name == "*" {
		name = "*/*"
	}
	r := mediaRange{name: strings.ToLower(name)}
	for _, parameter := range parts[1:] {
		name, weight, _ := strings.Cut(parameter, "=")
		if strings.EqualFold(trimSpace(name), "q") {
			r.refused = isZero(trimSpace(weight))
			break
		}
	}
	return r, isRange(name)
}

func trimSpace(s string) string { return strings.Trim(s, " \t") }

// isZero tells a weight of zero, with as many digits as there are. What is no weight is not zero.
func isZero(weight string) bool {
	whole, fraction, _ := strings.Cut(weight, ".")
	return whole == "0" && strings.Trim(fraction, "0") == ""
}

// isRange tells a media range: two tokens (RFC 9110, 5.6.2), of which the first is not a star alone.
func isRange(name string) bool {
	kind, subtype, _ := strings.Cut(name, "/")
	return len(name) <= maxTypeLength && isToken(kind) && isToken(subtype) && (kind != "*" || subtype == "*")
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		isWord := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !isWord && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// Takes reports whether the client reads a media type, whose parameters and case do not matter. What
// is said of the type itself comes before what is said of "application/*", and that before "*/*".
//
// application/json is no type of a manifest, but clients use it for one. Where it stands beside
// types of manifests it is schema 1, which was sent under that name. Where none is named it is every
// type: manifests are JSON, and a client that asks for no more than that has no preference.
func (a Accept) Takes(mediaType string) bool {
	base, _, _ := strings.Cut(strings.ToLower(mediaType), ";")
	base = trimSpace(base)
	kind, _, _ := strings.Cut(base, "/")
	for _, name := range []string{base, kind + "/*", "*/*"} {
		if taken, found := a.find(name); found {
			return taken
		}
		if name == base && a.takesAsJSON(base) {
			return true
		}
	}
	return len(a.ranges) == 0
}

// find looks for a range of that name. Of several the client takes one, parameters apart.
func (a Accept) find(name string) (taken, found bool) {
	for _, r := range a.ranges {
		if r.name == name {
			taken, found = taken || !r.refused, true
		}
	}
	return taken, found
}

func (a Accept) takesAsJSON(base string) bool {
	if taken, _ := a.find("application/json"); !taken {
		return false
	}
	return IsSchema1(base) || IsManifest(base) && !a.namesManifests()
}

// namesManifests reports whether the client knows any type of manifest by name.
func (a Accept) namesManifests() bool {
	for _, r := range a.ranges {
		if IsManifest(r.name) {
			return true
		}
	}
	return false
}

// takesOnlySchema1 reports whether schema 1 is the only format that the client reads.
func (a Accept) takesOnlySchema1() bool {
	for _, mediaType := range MediaTypes() {
		if a.Takes(mediaType) {
			return false
		}
	}
	return a.Takes(MediaTypeSchema1) || a.Takes(MediaTypeSchema1Signed)
}

// String lists what was read, of a long list the beginning. It holds only characters of tokens.
func (a Accept) String() string {
	if len(a.ranges) == 0 {
		return "everything"
	}
	var b strings.Builder
	for i, r := range a.ranges {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > maxReason {
			b.WriteString("…")
			break
		}
		b.WriteString(r.name)
		if r.refused {
			b.WriteString(";q=0")
		}
	}
	return b.String()
}
