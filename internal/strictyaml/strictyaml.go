// Package strictyaml reads the YAML files that people write for berth, and tells in one line what is wrong with one.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Decode reads the one document of a file. An empty file leaves into as it is. fields says, for an error, which there are. What is
// not known is refused, so that no slip of the finger changes what is meant.
func Decode(data []byte, into any, fields string) error {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fault(err, fields)
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return errors.New("it has more than one YAML document; keep the first")
	}
	return nil
}

// fault makes one line of what the parser says, without its own words and types.
func fault(err error, fields string) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	var several *yaml.TypeError
	if errors.As(err, &several) && len(several.Errors) > 0 {
		text = several.Errors[0]
	}
	if match := regexp.MustCompile(`^(line \d+): field (.*) not found in type`).FindStringSubmatch(text); match != nil {
		return fmt.Errorf("%s: there is no field %.40q; %s", match[1], match[2], fields)
	}
	if match := regexp.MustCompile(`^(line \d+): cannot unmarshal \S+ (.*)into (\S+)$`).FindStringSubmatch(text); match != nil {
		return fmt.Errorf("%s: %.60sis not %s", match[1], match[2], wanted(match[3]))
	}
	return fmt.Errorf("%.200s", strings.Join(strings.Fields(text), " "))
}

// wanted is a type in the words of people.
func wanted(kind string) string {
	switch {
	case strings.HasPrefix(kind, "[]string"):
		return "a list, like [pull, push]"
	case strings.HasPrefix(kind, "[]"):
		return "a list"
	case kind == "bool":
		return "true or false"
	case kind == "string":
		return "a text"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "float"):
		return "a number"
	}
	return "what there should be"
}
