package server_test

import (
	"strings"
	"testing"

	"github.com/berthoci/berth/server"
)

func TestParseRules(t *testing.T) {
	parsed := rules(t)
	if len(parsed) != 5 || parsed[0].Users[0] != "ada" || !parsed[0].Catalog || !parsed[4].Anonymous || parsed[2].Classes[0] != "application/vnd.oci.image.*" {
		t.Errorf("got %+v", parsed)
	}
	// JSON is YAML.
	if _, err := server.ParseRules(strings.NewReader(`{"rules": [{"users": ["*"], "catalog": true}]}`)); err != nil {
		t.Error(err)
	}
}

func TestParseRulesRefuses(t *testing.T) {
	const who = "rules:\n  - users: [ada]\n    "
	for text, says := range map[string]string{
		"":                                      "no rule in it",
		"# nothing\n":                           "no rule in it",
		"rules: []\n":                           "no rule in it",
		"rules:\n":                              "no rule in it",
		"[]":                                    "line 1",
		"rules: 5\n":                            "line 1",
		"rules: [5]\n":                          "line 1",
		"rules: \x00":                           "control characters",
		"rules: [\n":                            "line",
		"version: 1\n":                          `line 1: there is no field "version"`,
		who + "action: [pull]":                  `line 3: there is no field "action"; a file has rules, and a rule has users`,
		who + "users: [bob]":                    "line 3",
		who + "catalog: maybe":                  "line 3",
		who + "catalog: true\n---\nrules: []\n": "more than one YAML document",
		who + "repositories: app/**":            "line 3: `app/**` is not a list, like [pull, push]",
		who + "repositories: ['app/**']":        `rule 1: "repositories" and "actions" go together`,
		who + "actions: [pull]":                 `rule 1: "repositories" and "actions" go together`,
		"rules:\n  - users: [ada]\n":            "rule 1: it allows nothing",
		"rules:\n  - users: []\n    catalog: true\n":                     "rule 1: it is for nobody",
		"rules:\n  - {users: [ada], catalog: true}\n  - catalog: true\n": "rule 2: it is for nobody",
		"rules:\n  -\n": "no rule in it",
		"rules:\n  - users: ['']\n    catalog: true\n":                                   "rule 1: a user has no name",
		"rules:\n  - users: [anonymous]\n    catalog: true\n":                            `write "anonymous: true"`,
		who + "repositories: ['app/**']\n    actions: [read]":                            `rule 1: there is no action "read"`,
		who + "repositories: ['app/[']\n    actions: [pull]":                             `"app/[" is no pattern`,
		who + "repositories: ['']\n    actions: [pull]":                                  `"" is no pattern`,
		who + "repositories: ['x']\n    actions: [pull]\n    classes: ['a/b']":           `"classes" are for rules that allow to push`,
		who + "repositories: ['x']\n    actions: [push]\n    classes: ['{']":             `"{" is no pattern`,
		who + "repositories: ['x']\n    actions: [push]\n    classes: ['']":              "is no pattern",
		"a: &a [x,x]\nb: &b [*a,*a]\nrules: *b\n":                                        "line 1",
		who + "repositories: ['" + strings.Repeat("x", 600) + "']\n    actions: [pull]":  "is no pattern",
		"rules:\n  - users: [" + strings.Repeat("ada, ", 60_000) + "ada]\n":              "more than 256 KiB",
		who + "repositories: ['x']\n    actions: [" + strings.Repeat("read", 5000) + "]": "there is no action",
	} {
		_, err := server.ParseRules(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80q: got %v, want it to say %q", text, err, says)
		}
		if err != nil && (strings.Contains(err.Error(), "\n") || len(err.Error()) > 300) {
			t.Errorf("it is not one line: %q", err)
		}
	}
}
